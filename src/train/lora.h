// LoRA (arXiv 2106.09685): adapters to train.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gemma/adapter.h"
#include "train/parameter.h"

namespace lapidary {

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 16;    // the scale is alpha / rank
  bool rslora = false;  // or alpha / sqrt(rank) (arXiv 2312.03732)
  bool dora = false;    // with lengths of the rows (arXiv 2402.09353), zeros until start_dora
  // Patterns over the names of a layer's matrices, "self_attn.q_proj": one fits a whole name, or
  // its last word, and may have * and ?. One that begins with "layers." is over names with their
  // layer, "layers.3.self_attn.q_proj". Empty: all of adaptable_matrices().
  std::vector<std::string> targets = {};
  int64_t last_layers = 0;  // only the last so many layers; 0: all
  uint64_t seed = 0;
};

// Names of the matrices that the options choose, "model.layers.0.self_attn.q_proj", in the model's
// order. Throws Error{kUsage} for a pattern that fits nothing.
std::vector<std::string> lora_targets(const Config& config, const LoraOptions& options);

// b = 0 and a uniform in +-1 / sqrt(K), which is Kaiming's with a = sqrt(5), as PEFT has it. Throws
// Error{kUsage} for a rank that is not positive, and as lora_targets.
Adapter make_lora(const Config& config, const LoraOptions& options);

// After attaching: the lengths of the rows become those that the matrices have.
void start_dora(Adapter& adapter);

// Draws every a anew and zeroes every b; `round` counts the times.
void restart_lora(Adapter& adapter, uint64_t seed, uint64_t round);

// Gradients of an adapter's factors, "model.layers.0.self_attn.q_proj.lora_a" and "...lora_b", and
// of DoRA's lengths "...magnitude", which do not decay.
class AdapterWeights {
 public:
  // `adapter` must outlive this and keep its matrices where they are.
  explicit AdapterWeights(Adapter& adapter);
  const std::vector<Parameter>& parameters() const { return parameters_; }

 private:
  std::vector<AlignedVector<float>> gradients_;
  std::vector<Parameter> parameters_;
};

}  // namespace lapidary
