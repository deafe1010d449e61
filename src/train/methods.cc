#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/fail.h"
#include "gemma/adapter_file.h"
#include "tensor/gemm.h"
#include "train/directions.h"
#include "train/full_weights.h"
#include "train/method.h"
#include "train/model_folder.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

StateArray state_array(const Parameter& p) {
  return {.name = p.name,
          .dtype = DType::kF32,
          .elements = p.size(),
          .bytes = std::as_writable_bytes(p.value)};
}

std::vector<StateArray> state_arrays(std::span<const Parameter> parameters) {
  std::vector<StateArray> list;
  for (const Parameter& p : parameters) list.push_back(state_array(p));
  return list;
}

// The matrices among the parameters.
std::vector<TrainedMatrix> trained_matrices(std::span<const Parameter> parameters) {
  std::vector<TrainedMatrix> list;
  for (const Parameter& p : parameters) {
    if (!p.matrix()) continue;
    const std::string name = p.name.substr(0, p.name.rfind(".weight"));
    list.push_back(
        {.name = name, .rows = p.rows, .cols = p.cols, .value = p.value, .grad = p.grad});
  }
  return list;
}

}  // namespace

LoraOptions lora_options(const TrainOptions& o) {
  return {.rank = o.rank,
          .alpha = o.alpha,
          .rslora = o.rslora,
          .dora = o.dora,
          .targets = o.targets,
          .last_layers = o.last_layers,
          .seed = o.seed};
}

bool is_embedding(std::string_view tensor) {
  return tensor == "model.embed_tokens.weight";
}

bool trained_beside(const TrainOptions& o, std::string_view tensor) {
  return (o.train_embeddings && is_embedding(tensor)) ||
         (o.train_norms && tensor.ends_with("norm.weight"));
}

namespace {

using SetBlock = std::optional<SetBlockTraining>;

class FullMethod : public Method {
 public:
  FullMethod(Model& model, fs::path folder, SetBlock set_block)
      : model_(model),
        folder_(std::move(folder)),
        set_block_(set_block),
        weights_(model.config, model.weights, [](std::string_view) { return true; }) {}

  std::span<const Parameter> parameters() const override { return weights_.parameters(); }
  std::vector<TrainedMatrix> matrices() const override { return trained_matrices(parameters()); }
  std::vector<StateArray> state() override { return state_arrays(parameters()); }
  fs::path write(const fs::path& run, Executor& /*ex*/) override {
    write_model_folder(model_, folder_, run / "model", set_block_);
    return run / "model";
  }

 private:
  Model& model_;
  fs::path folder_;
  SetBlock set_block_;
  FullWeights weights_;
};

class LoraMethod : public Method {
 public:
  LoraMethod(const TrainOptions& o, Model& model, const fs::path& folder, SetBlock set_block)
      : model_(model),
        folder_(folder),
        adapter_(make_lora(model.config, lora_options(o))),
        weights_(adapter_) {
    adapter_.set_block = set_block;
    attach(adapter_, 1, model.config, model.weights);
    start_dora(adapter_);
  }

  // DoRA's norms follow from the factors: after each step, and after they were restored.
  bool choose(int64_t /*step*/) override {
    if (!std::exchange(measured_, false)) measure_rows(adapter_, model_.config, model_.weights);
    return false;
  }
  void end(int64_t /*steps*/, Optimizer& /*optimizer*/, Executor& /*ex*/) override {
    measure_rows(adapter_, model_.config, model_.weights);
    measured_ = true;
  }

  std::span<const Parameter> parameters() const override { return weights_.parameters(); }
  std::vector<TrainedMatrix> matrices() const override {
    std::vector<TrainedMatrix> list;
    for (const AdapterMatrix& m : adapter_.matrices)
      list.push_back({.name = m.target,
                      .rows = std::ssize(m.b) / m.rank,
                      .cols = std::ssize(m.a) / m.rank,
                      .factors = &m});
    return list;
  }
  std::vector<StateArray> state() override { return state_arrays(parameters()); }
  bool small() const override { return true; }
  fs::path write(const fs::path& run, Executor& /*ex*/) override {
    save_adapter({.adapter = adapter_, .base_model = folder_.string()}, AdapterFormat::kPeft,
                 run / "adapter", true);
    return run / "adapter";
  }

 private:
  const Model& model_;
  fs::path folder_;
  Adapter adapter_;
  AdapterWeights weights_;
  bool measured_ = false;  // since the last step began
};

// Full training for a while, then adapters on frozen f32 matrices, into which they are merged
// every so often. Embeddings and norms go on being trained where asked for.
class ReloraMethod : public Method {
 public:
  ReloraMethod(const TrainOptions& o, Model& model, fs::path folder, SetBlock set_block)
      : options_(o),
        model_(model),
        folder_(std::move(folder)),
        set_block_(set_block),
        warm_(o.warm_start > 0),
        adapter_(make_lora(model.config, lora_options(o))),
        factors_(adapter_),
        weights_(model.config, model.weights, [&](std::string_view name) {
          return o.warm_start > 0 || trained_beside(o, name) || adapted(name);
        }) {
    // Both are in the order of visit_tensors.
    size_t i = 0;
    for (const AdapterMatrix& m : adapter_.matrices) {
      while (weights_.parameters()[i].name != m.target + ".weight") ++i;
      adapted_.push_back(i);
    }
    choose_parameters();
  }

  std::span<const Parameter> parameters() const override { return parameters_; }

  bool choose(int64_t step) override {
    const bool warm = step < options_.warm_start;
    if (warm == warm_) return false;
    warm_ = warm;
    choose_parameters();
    return true;
  }

  void end(int64_t steps, Optimizer& optimizer, Executor& ex) override {
    const int64_t merged = merges(steps);
    if (merged == merges(steps - 1)) return;
    merge(ex);
    restart_lora(adapter_, options_.seed, static_cast<uint64_t>(merged));
    for (size_t i = 0; i < factors_.parameters().size(); ++i)
      optimizer.keep_largest(i, options_.prune);
  }

  std::vector<TrainedMatrix> matrices() const override {
    std::vector<TrainedMatrix> list = trained_matrices(weights_.parameters());
    auto next = list.begin();  // the adapter's are in the same order
    for (const AdapterMatrix& m : adapter_.matrices) {
      next = std::ranges::find(next, list.end(), m.target, &TrainedMatrix::name);
      next->factors = &m;
    }
    return list;
  }
  int64_t merges(int64_t steps) const override {
    return std::max<int64_t>(0, steps - options_.warm_start) / options_.reset_every;
  }

  std::vector<StateArray> state() override {
    std::vector<StateArray> list = state_arrays(factors_.parameters());
    for (StateArray& array : state_arrays(weights_.parameters())) list.push_back(std::move(array));
    return list;
  }

  fs::path write(const fs::path& run, Executor& ex) override {
    merge(ex);
    for (AdapterMatrix& m : adapter_.matrices) std::fill(m.b.begin(), m.b.end(), 0.0f);
    write_model_folder(model_, folder_, run / "model", set_block_);
    return run / "model";
  }

 private:
  bool adapted(std::string_view name) const {
    return std::any_of(adapter_.matrices.begin(), adapter_.matrices.end(),
                       [&](const AdapterMatrix& m) { return name == m.target + ".weight"; });
  }

  void choose_parameters() {
    parameters_.clear();
    if (!warm_) {
      parameters_ = factors_.parameters();
      if (!std::exchange(attached_, true)) attach(adapter_, 1, model_.config, model_.weights);
    }
    for (const Parameter& p : weights_.parameters())
      if (warm_ || trained_beside(options_, p.name)) parameters_.push_back(p);
  }

  // w += scale * b a, in f32, one chain over the rank for each value.
  void merge(Executor& ex) {
    for (size_t i = 0; i < adapter_.matrices.size(); ++i) {
      const AdapterMatrix& m = adapter_.matrices[i];
      const Parameter& p = weights_.parameters()[adapted_[i]];
      AlignedVector<float> scaled = m.b;
      for (float& value : scaled) value *= static_cast<float>(m.scale);
      gemm(ex, Strided(scaled.data(), p.rows, m.rank, m.rank),
           Strided(m.a.data(), m.rank, p.cols, p.cols), {p.value.data(), p.cols}, Into::kAdd);
    }
  }

  const TrainOptions options_;
  Model& model_;
  fs::path folder_;
  SetBlock set_block_;
  bool warm_;
  Adapter adapter_;
  AdapterWeights factors_;
  FullWeights weights_;
  std::vector<size_t> adapted_;  // of weights_, the matrix that each of the adapter's goes into
  std::vector<Parameter> parameters_;
  bool attached_ = false;
};

class Rank1Method : public Method {
 public:
  Rank1Method(const TrainOptions& o, Model& model, fs::path folder, SetBlock set_block)
      : options_(o),
        model_(model),
        folder_(std::move(folder)),
        set_block_(set_block),
        targets_(target_names(o, model)),
        weights_(model.config, model.weights,
                 [&](std::string_view name) {
                   return targets_.contains(std::string(name)) || trained_beside(o, name);
                 }),
        projections_(weights_.parameters().size()) {
    if (o.rank < 1) fail_usage("--rank: {} is not positive", o.rank);
    if (o.merge_every < 1) fail_usage("--merge-every: {} is not positive", o.merge_every);
  }

  std::span<const Parameter> parameters() const override { return weights_.parameters(); }

  void gradients(int64_t step, Executor& ex) override {
    for (size_t i = 0; i < projections_.size(); ++i) {
      const Parameter& p = weights_.parameters()[i];
      if (!targets_.contains(p.name)) continue;
      const Matrix g{p.grad.data(), p.rows, p.cols};
      const auto draw = static_cast<uint64_t>(step / options_.merge_every) * 4096 + i;
      if (step % options_.merge_every == 0)
        projections_[i].choose(ex, options_.directions, options_.rank, g, options_.seed, draw);
      projections_[i].apply(ex, g);
    }
  }

  // Moments of other directions say little of these.
  void end(int64_t steps, Optimizer& optimizer, Executor& /*ex*/) override {
    if (!options_.reset_optimizer || steps % options_.merge_every != 0) return;
    for (size_t i = 0; i < weights_.parameters().size(); ++i)
      if (targets_.contains(weights_.parameters()[i].name)) optimizer.reset(i);
  }

  std::vector<TrainedMatrix> matrices() const override {
    std::vector<TrainedMatrix> list = trained_matrices(parameters());
    for (TrainedMatrix& m : list) m.projected = true;
    return list;
  }
  // Of each choice of directions, in the words of one-step LoRA.
  int64_t merges(int64_t steps) const override {
    return (steps + options_.merge_every - 1) / options_.merge_every;
  }

  // Directions that outlive a step are part of it.
  std::vector<StateArray> state() override {
    std::vector<StateArray> list = state_arrays(parameters());
    if (options_.merge_every == 1) return list;
    for (size_t i = 0; i < projections_.size(); ++i) {
      const Parameter& p = weights_.parameters()[i];
      if (!targets_.contains(p.name)) continue;
      const std::span<float> a =
          projections_[i].room(options_.directions, options_.rank, p.rows, p.cols);
      list.push_back({.name = "directions." + p.name,
                      .dtype = DType::kF32,
                      .elements = std::ssize(a),
                      .bytes = std::as_writable_bytes(a)});
    }
    return list;
  }

  fs::path write(const fs::path& run, Executor& /*ex*/) override {
    write_model_folder(model_, folder_, run / "model", set_block_);
    return run / "model";
  }

 private:
  static std::set<std::string> target_names(const TrainOptions& o, const Model& model) {
    std::set<std::string> names;
    for (const std::string& target : lora_targets(model.config, lora_options(o)))
      names.insert(target + ".weight");
    return names;
  }

  const TrainOptions options_;
  Model& model_;
  fs::path folder_;
  SetBlock set_block_;
  std::set<std::string> targets_;
  FullWeights weights_;
  std::vector<Projection> projections_;
};

}  // namespace

std::unique_ptr<Method> make_method(const TrainOptions& options, Model& model,
                                    const fs::path& folder,
                                    const std::optional<SetBlockTraining>& set_block) {
  switch (options.method) {
    case TrainMethod::kFull:
      return std::make_unique<FullMethod>(model, folder, set_block);
    case TrainMethod::kLora:
      return std::make_unique<LoraMethod>(options, model, folder, set_block);
    case TrainMethod::kRelora:
      return std::make_unique<ReloraMethod>(options, model, folder, set_block);
    case TrainMethod::kRank1:
      return std::make_unique<Rank1Method>(options, model, folder, set_block);
  }
  return nullptr;
}

}  // namespace lapidary
