#pragma once

#include "kernels/kernels.h"

namespace lapidary::ref {

// One value of a row of packed codes: `index` counts codes of `bits` bits, least significant first.
uint32_t code_at(const std::byte* row, int bits, int64_t index);

// What the value of a quantised matrix at [row, col] is made of: scale * code + bias.
struct CodedWeight {
  float code, scale, bias;
};
CodedWeight coded_weight_at(const WeightMatrix& weight, int64_t row, int64_t col);

// The value that a matrix holds at [row, col].
float weight_at(const WeightMatrix& weight, int64_t row, int64_t col);

const Kernels& kernels();

}  // namespace lapidary::ref
