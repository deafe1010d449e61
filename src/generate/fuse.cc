#include "lapidary/fuse.h"

#include <cmath>
#include <utility>

#include <fmt/ranges.h>

#include "base/fail.h"
#include "gemma/adapter_file.h"
#include "generate/convert_plan.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// A matrix of the model with what is added to it, and where it is in the plan.
struct Update {
  const Linear* base;
  PlannedTensor* tensor;
};

// The matrices that change, which are to be stored from base + update.
std::vector<Update> plan_updates(const Model& model, ConversionPlan& plan) {
  std::vector<Update> updates;
  size_t next = 0;
  for (const WeightMatrix* matrix : list_matrices(model)) {
    while (!plan.tensors[next].in_text_model()) ++next;
    PlannedTensor& tensor = plan.tensors[next++];
    const auto* linear = static_cast<const Linear*>(matrix);
    if (linear->low_rank.empty()) continue;
    tensor.verbatim = false;
    tensor.values = RowSource{matrix->rows, matrix->cols, [linear](int64_t row, float* values) {
                                effective_row(*linear, row, values);
                              }};
    updates.push_back({linear, &tensor});
  }
  return updates;
}

// Sums of squares over a matrix.
struct Sums {
  double weights = 0, update = 0, lost = 0, moved = 0;
  Sums& operator+=(const Sums& other) {
    weights += other.weights;
    update += other.update;
    lost += other.lost;
    moved += other.moved;
    return *this;
  }
};

Sums compare_row(const Update& update, const WeightMatrix& stored, int64_t row) {
  const auto cols = static_cast<size_t>(stored.cols);
  std::vector<float> before(cols), wanted(cols), after(cols);
  best_kernels().dequantize_row(*update.base, row, before.data());
  update.tensor->values->fill(row, wanted.data());
  best_kernels().dequantize_row(stored, row, after.data());
  Sums sums;
  for (size_t i = 0; i < cols; ++i) {
    const auto square = [](double x) { return x * x; };
    sums.weights += square(before[i]);
    sums.update += square(double{wanted[i]} - before[i]);
    sums.lost += square(double{after[i]} - wanted[i]);
    sums.moved += square(double{after[i]} - before[i]);
  }
  return sums;
}

double share(double part, double whole) {
  return whole > 0 ? std::sqrt(part / whole) : 0;
}

// Fills `fusion` with what is left of each update; throws when nothing is.
void inspect(const std::vector<Update>& updates, const Model& source, const Model& result,
             const ConversionPlan& plan, ThreadPool& pool, Fusion& fusion) {
  const std::vector<const WeightMatrix*> stored = list_matrices(result);
  size_t index = 0, next = 0;
  Sums all;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.in_text_model()) continue;
    const WeightMatrix& matrix = *stored[index++];
    if (next == updates.size() || updates[next].tensor != &tensor) continue;
    const Update& update = updates[next++];
    std::vector<Sums> rows(static_cast<size_t>(matrix.rows));
    pool.parallel_for(matrix.rows, [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last; ++row)
        rows[static_cast<size_t>(row)] = compare_row(update, matrix, row);
    });
    Sums sums;
    for (const Sums& row : rows) sums += row;
    source.release_pages();
    result.release_pages();
    fusion.matrices.push_back(
        {tensor.name, share(sums.update, sums.weights), share(sums.lost, sums.update)});
    all += sums;
  }
  fusion.update = share(all.update, all.weights);
  fusion.lost = share(all.lost, all.update);
  if (!(all.moved > 0))
    throw Error(ErrorKind::kInput,
                fmt::format("the fused weights are those of the model: the update, {:.2g} of the "
                            "weights, is nothing where they are stored",
                            fusion.update),
                "--dequantize stores smaller updates; --adapter adds them at run time");
}

std::string settings_text(const FuseOptions& options) {
  std::vector<std::string> names;
  for (const AdapterUse& use : options.adapters)
    names.push_back(
        fmt::format("{} x {}", fs::weakly_canonical(use.path).filename().string(), use.strength));
  return fmt::format("fused with {}{}", fmt::join(names, ", "),
                     options.dequantize ? ", dequantised" : "");
}

}  // namespace

Fusion fuse(const fs::path& in, const fs::path& out, const FuseOptions& options,
            const Watch& watch) {
  if (options.adapters.empty()) fail_usage("no adapter given to fuse");
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  check_target(in, out, options.overwrite);
  Model model = load_model(in);
  std::vector<Adapter> adapters;
  std::optional<SetBlockTraining> set_block;
  for (const AdapterUse& use : options.adapters) {
    adapters.push_back(load_and_attach(use.path, use.strength, model.config, model.weights));
    if (adapters.back().set_block) set_block = adapters.back().set_block;
  }

  FolderOptions folder{.dequantize = options.dequantize,
                       .overwrite = options.overwrite,
                       .check = options.check,
                       .threads = options.threads};
  ConversionPlan plan = plan_copy(model, options.dequantize, in.string());
  if (model.gguf) folder.dtype = dtype_from_gguf(model);
  const std::vector<Update> updates = plan_updates(model, plan);
  plan.changed = std::ssize(updates);
  plan.set_block = set_block;
  Fusion fusion;
  plan.inspect = [&](const Model& result, ThreadPool& pool) {
    inspect(updates, model, result, plan, pool, fusion);
  };
  fusion.conversion = write_folder(model, plan, out, folder, settings_text(options), watch);
  return fusion;
}

}  // namespace lapidary
