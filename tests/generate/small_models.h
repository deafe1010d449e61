// Models that are made in milliseconds, and what their weights stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lapidary/synth.h"

#include "kernels/kernels.h"

namespace lapidary {

// A preset in these sizes, `hidden` among them; without others in 300 tokens, and 2 heads of half
// the width that share the keys and values of one.
inline Config small_config(const std::string& name, ShapeOverrides sizes) {
  if (!sizes.heads) sizes.heads = 2;
  if (!sizes.kv_heads) sizes.kv_heads = 1;
  if (!sizes.head_dim) sizes.head_dim = sizes.hidden.value() / 2;
  if (!sizes.vocab) sizes.vocab = 300;
  return with_overrides(preset(name), sizes);
}

// [rows, cols]
inline std::vector<float> floats(const WeightMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row)
    supported_kernels()[0]->dequantize_row(matrix, row, values.data() + row * matrix.cols);
  return values;
}

}  // namespace lapidary
