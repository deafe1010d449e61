// From gradients to new weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "io/safetensors.h"
#include "tensor/ops.h"
#include "train/moment.h"
#include "train/parameter.h"

namespace lapidary {

enum class OptimizerKind : uint8_t {
  kAdamW,   // state: two f32 per value
  kAdamW8,  // state: two bytes per value (moment.h)
  kSgd,     // state: one f32 per value, none without momentum
  kMuon,    // matrices by Muon, one f32 per value; vectors and embeddings by AdamW
};

// "adamw", "adamw8", "sgd" or "muon". Throws Error{kUsage}.
OptimizerKind optimizer_kind(std::string_view name);
std::string_view name_of(OptimizerKind kind);

struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double beta1 = 0.9;  // of AdamW, also within Muon
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;  // of parameters that take it. SGD's is added to the gradient
  double momentum = 0;         // of SGD
  double muon_momentum = 0.95;
  uint64_t seed = 0;  // of the rounding of 8-bit state

  // Throws Error{kUsage} naming the option that is out of its range.
  void check() const;
};

// The arithmetic is that of torch.optim.AdamW, SGD (no dampening, no Nesterov) and Muon (with
// adjust_lr_fn="match_rms_adamw", so that one learning rate serves matrices and the rest), in f32.
// Muon's Newton-Schulz iteration is in f32 where PyTorch's is in bf16. No result depends on the
// number of threads.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // Moves the values against the gradients by one step of the rate `lr`. `parameters` are those
  // that the optimizer was made for: the same names and sizes in the same order; their memory may
  // have moved. Gradients must be finite, and stay as they are.
  void step(std::span<const Parameter> parameters, double lr, Executor& ex);

  // The whole state, for saving and, through the spans, restoring: bit for bit, a step after
  // restoring equals the step that would have come. Array names are those of PyTorch's state with
  // the parameter's behind: "exp_avg.W", "exp_avg_sq.W", "momentum_buffer.W"; "step", i64, has the
  // number of steps that each parameter took. Valid while the optimizer lives.
  std::vector<StateArray> state();

  // What training that merges adapters into the weights does to the state of one parameter, given
  // by its place among the parameters. A moment that is kept where the other was cleared makes
  // large steps, so the learning rate is to be warmed up again after either pruning.
  //
  // In each moment by itself, zeroes what is not strictly greater in magnitude than the quantile,
  // 0 <= quantile <= 1, interpolated between values as numpy and PyTorch do. A first moment that
  // loses its second one goes with it, which ReLoRA's own code does not do.
  void keep_largest(size_t parameter, double quantile);
  // Zeroes each entry, in all moments at once, with the probability `share`.
  void prune_at_random(size_t parameter, double share, const CounterRng& rng);
  // As if the parameter were new: moments and step count zero.
  void reset(size_t parameter);

 protected:
  struct Entry {
    std::string name;  // of the parameter
    int64_t size = 0;
    std::vector<Moment> moments;
  };
  // Makes an entry without moments for each parameter.
  Optimizer(const OptimizerOptions& options, std::span<const Parameter> parameters);
  void add_moment(size_t parameter, std::string_view moment, MomentType type);

  // Called with the step counts already at the step's own number, from 1.
  virtual void update(std::span<const Parameter> parameters, double lr, Executor& ex) = 0;

  OptimizerOptions options_;
  std::vector<Entry> entries_;
  std::vector<int64_t> steps_;  // that each parameter took
};

// Checks the options. Nothing is kept of the parameters but names and sizes.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          std::span<const Parameter> parameters);

// Writes arrays as tensors of one dimension, in a file that is there whole or not at all. Throws as
// SafetensorsWriter.
void write_state(const std::filesystem::path& path, std::span<const StateArray> arrays,
                 const Metadata& metadata = {});
// Fills the arrays, which must be the ones in the file. Throws Error{kInput} naming file and tensor
// when one is missing, superfluous or of another type or size; nothing has been filled then.
void read_state(const SafetensorsFile& file, std::span<const StateArray> arrays);

}  // namespace lapidary
