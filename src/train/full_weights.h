// Tensors of a model that are trained themselves, in f32.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/aligned_vector.h"
#include "gemma/model.h"
#include "train/parameter.h"

namespace lapidary {

// f32 copies of tensors, which take their place in the model's weights, and their gradients.
class FullWeights {
 public:
  // Of the tensors whose canonical name ("model.layers.0.mlp.up_proj.weight") is wanted. Norms are
  // f32 in `weights` already, as 1 + w, and are trained there. `weights` must outlive this, and
  // must not be used after it.
  FullWeights(const Config& config, Weights& weights,
              const std::function<bool(std::string_view name)>& wanted);

  // In the order of visit_tensors. Norms do not decay.
  std::span<const Parameter> parameters() const { return parameters_; }
  void track(Tape& tape) const;

 private:
  Parameter add_matrix(Linear& matrix);
  Parameter add_vector(std::vector<float>& values);

  std::vector<AlignedVector<float>> values_, gradients_;
  std::vector<Parameter> parameters_;
};

}  // namespace lapidary
