#include "train/memory.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/fail.h"
#include "base/system.h"
#include "gemma/backprop.h"
#include "train/lora.h"
#include "train/method.h"
#include "train/optimizer.h"

namespace lapidary {

namespace {

// Packed operands and decoded rows of products (gemm.cc), and what the report is made of.
constexpr int64_t kProgramBytes = int64_t{16} << 20;

struct Sizes {
  int64_t values = 0, matrices = 0;  // matrices: those of them that Muon takes
  int64_t largest_rows = 0, largest_cols = 0;

  void add(const std::string& name, int64_t rows, int64_t cols) {
    const int64_t size = rows * std::max<int64_t>(cols, 1);
    values += size;
    if (cols == 0 || is_embedding(name)) return;
    matrices += size;
    if (size > largest_rows * largest_cols) largest_rows = rows, largest_cols = cols;
  }
};

int64_t optimizer_bytes(const TrainOptions& o, const Sizes& sizes) {
  constexpr int64_t kFloat = sizeof(float);
  switch (optimizer_kind(o.optimizer)) {
    case OptimizerKind::kAdamW:
      return 2 * kFloat * sizes.values;
    case OptimizerKind::kAdamW8:
      return 2 * sizes.values + sizes.values / 32;
    case OptimizerKind::kSgd:
      return o.momentum > 0 ? kFloat * sizes.values : 0;
    case OptimizerKind::kMuon: {
      const int64_t m = std::min(sizes.largest_rows, sizes.largest_cols);
      return kFloat * (2 * sizes.values - sizes.matrices) +
             kFloat * (sizes.largest_rows * sizes.largest_cols + 2 * m * m);
    }
  }
  return 0;
}

// Which tensors become f32 values with gradients, and which matrices get adapters.
struct TrainedTensors {
  explicit TrainedTensors(const TrainOptions& o, const Model& model) : options(o) {
    if (o.method != TrainMethod::kFull)
      for (const std::string& name : lora_targets(model.config, lora_options(o)))
        targets.insert(name + ".weight");
  }

  bool adapter(const std::string& name) const {
    return (options.method == TrainMethod::kLora || options.method == TrainMethod::kRelora) &&
           targets.contains(name);
  }
  bool values(const std::string& name) const {
    switch (options.method) {
      case TrainMethod::kLora:
        return false;
      case TrainMethod::kFull:
        return true;
      case TrainMethod::kRelora:
        return options.warm_start > 0 || targets.contains(name) || beside(name);
      case TrainMethod::kRank1:
        return targets.contains(name) || beside(name);
    }
    return false;
  }
  bool beside(const std::string& name) const {
    return options.method != TrainMethod::kLora && trained_beside(options, name);
  }

  const TrainOptions& options;
  std::set<std::string> targets;
};

int64_t directions_bytes(const TrainOptions& o, int64_t rows, int64_t cols) {
  const int64_t rank = std::min(o.rank, std::min(rows, cols));
  return rank * (rows + cols) * int64_t{sizeof(float)};
}

// Of --rank-every, for a matrix: the update at the last measurement, and in a measured step copies
// of values and whole gradients (update_cosine.h), or the gradient of what does not move.
int64_t measured_bytes(const TrainOptions& o, bool moves, int64_t size) {
  if (o.rank_every == 0) return 0;
  const int64_t copies = !moves ? 1 : o.method == TrainMethod::kRank1 ? 3 : 2;
  return copies * size * int64_t{sizeof(float)};
}

}  // namespace

int64_t rows_at_once(const TrainOptions& o) {
  const int64_t copies = o.objective == TrainObjective::kSetBlock ? 2 : 1;
  return o.micro_batch * o.sequence_length * copies;
}

TrainMemory training_memory(const TrainOptions& o, const Model& model, int64_t now) {
  const Config& c = model.config;
  const TrainedTensors trained(o, model);
  TrainMemory memory{.micro_batch = o.micro_batch, .checkpoint_layers = o.checkpoint_layers};
  Sizes values, factors, beside;
  visit_tensors(c, model.weights,
                [&](const std::string& name, const auto&, int64_t rows, int64_t cols) {
                  if (trained.values(name)) values.add(name, rows, cols);
                  if (trained.adapter(name)) {
                    factors.add(name + ".lora_a", o.rank, cols);
                    factors.add(name + ".lora_b", rows, o.rank);
                    if (o.dora) {
                      factors.add(name + ".magnitude", rows, 0);
                      memory.trained += rows * int64_t{sizeof(float)};  // their norms
                    }
                  } else if (trained.beside(name)) {
                    beside.add(name, rows, cols);
                  }
                  const bool moves = trained.values(name);
                  if (cols > 0 && !is_embedding(name) && (moves || trained.adapter(name)))
                    memory.trained += measured_bytes(o, moves, rows * cols);
                  if (o.method == TrainMethod::kRank1 && trained.targets.contains(name))
                    memory.trained += directions_bytes(o, rows, cols);
                });
  memory.trained += 2 * int64_t{sizeof(float)} * (values.values + factors.values);
  // What relora keeps as f32 to merge into, no optimizer moves after the warm start.
  const bool all = o.method != TrainMethod::kRelora || o.warm_start > 0;
  memory.optimizer = std::max(all ? optimizer_bytes(o, values) : 0,
                              optimizer_bytes(o, factors) + optimizer_bytes(o, beside));
  for (const WeightMatrix* m : list_matrices(model)) memory.weights += m->bytes();
  memory.activations =
      backprop_bytes(c, rows_at_once(o), std::max(o.checkpoint_layers, 0), o.dropout > 0,
                     [&](const std::string& name) {
                       return Trained{.values = trained.values(name),
                                      .adapter_rank = trained.adapter(name) ? o.rank : 0,
                                      .dora = o.dora};
                     });
  // Logits are those of the clean rows, and then of what is masked: never of all at once.
  memory.activations += cross_entropy_bytes(c, o.micro_batch * o.sequence_length) -
                        cross_entropy_bytes(c, rows_at_once(o));
  memory.program = now + kProgramBytes;
  return memory;
}

namespace {

std::string mib(int64_t bytes) {
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (int64_t{1} << 20));
}

// Values of checkpoint_layers to try, those that compute least again first.
std::vector<int> checkpoint_layers(const TrainOptions& o, int layers) {
  if (o.checkpoint_layers > layers)
    fail_usage("--checkpoint-layers: {} given, the model has {}", o.checkpoint_layers, layers);
  if (o.checkpoint_layers >= 0) return {o.checkpoint_layers};
  std::vector<int> counts = {0};
  for (int n = layers - 1; n > 0; --n) counts.push_back(n);
  return counts;
}

std::vector<int64_t> micro_batches(const TrainOptions& o) {
  if (o.micro_batch > 0) return {o.micro_batch};
  if (o.max_memory == 0) return {1};
  std::vector<int64_t> sizes;
  for (int64_t n = o.batch_size; n > 0; --n)
    if (o.batch_size % n == 0) sizes.push_back(n);
  return sizes;
}

}  // namespace

TrainMemory choose_memory(TrainOptions& options, const Model& model) {
  const int64_t now = rss_bytes();
  const int64_t limit =
      options.max_memory > 0 ? options.max_memory : now + available_memory_bytes();
  TrainOptions tried = options;
  std::optional<TrainMemory> least;
  for (int layers : checkpoint_layers(options, model.config.num_hidden_layers))
    for (int64_t rows : micro_batches(options)) {
      tried.checkpoint_layers = layers;
      tried.micro_batch = rows;
      const TrainMemory memory = training_memory(tried, model, now);
      if (memory.total() <= limit) {
        options = tried;
        return memory;
      }
      if (!least || memory.total() < least->total()) least = memory;
    }
  throw Error(
      ErrorKind::kResource,
      fmt::format("training needs {} (weights {}, what is trained {}, optimizer {}, "
                  "activations {}, the rest {}), and may have {}",
                  mib(least->total()), mib(least->weights), mib(least->trained),
                  mib(least->optimizer), mib(least->activations), mib(least->program), mib(limit)),
      "shorter sequences, a smaller --micro-batch, --optimizer adamw8 or a quantised model "
      "need less");
}

}  // namespace lapidary
