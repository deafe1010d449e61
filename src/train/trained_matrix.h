// A matrix that training changes, by whatever means.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "gemma/adapter.h"

namespace lapidary {

// What the model multiplies by is value + scale b a, or, where the values do not move, the stored
// weight + scale b a. A view; all of it is the method's.
struct TrainedMatrix {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const float> value = {};       // [rows, cols]; empty: the stored weight stays
  std::span<float> grad = {};              // room for its gradient; empty: none was made
  const AdapterMatrix* factors = nullptr;  // what is added
  bool projected = false;  // Method::gradients() changes the gradient for the optimizer
};

}  // namespace lapidary
