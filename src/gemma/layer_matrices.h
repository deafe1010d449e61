// The matrices of the layers by name.
#pragma once

#include <map>
#include <string>
#include <type_traits>

#include "gemma/model.h"

namespace lapidary {

// By their names in a checkpoint without ".weight": "model.layers.0.mlp.up_proj". Constant where
// the weights are; they belong to the weights.
template <typename WeightsType>
auto layer_matrices(const Config& config, WeightsType& weights) {
  using Entry = std::conditional_t<std::is_const_v<WeightsType>, const Linear, Linear>;
  std::map<std::string, Entry*> matrices;
  visit_tensors(config, weights, [&](const std::string& name, auto& field, int64_t, int64_t) {
    if constexpr (std::is_same_v<decltype(field), Entry&>)
      if (name.starts_with("model.layers."))
        matrices[name.substr(0, name.size() - std::string(".weight").size())] = &field;
  });
  return matrices;
}

}  // namespace lapidary
