// ggml's Q6_K: blocks of 256 weights in 16 groups of 16, 6.5625 bits per weight.
//
// A block is 210 bytes: 128 bytes with the low 4 bits of the codes, 64 with their high 2 bits, 16
// scales as signed bytes, and d as f16. weight = (d * scale) * (code - 32). Each half of a block,
// 128 weights, has 64 bytes of the first and 32 of the second: weights i, i + 32, i + 64, i + 96
// share byte i of the high bits, lowest first, and lie in the low halves of bytes i and i + 32,
// then in their high halves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lapidary {

constexpr int64_t kQ6KBlock = 256;
constexpr int64_t kQ6KBlockBytes = 210;

// Encodes whole blocks such that the sum of squared errors is small: least squares over a number of
// steps for each group, then over the neighbours of its rounded scale. The values must be finite.
void q6_k_encode(std::span<const float> values, std::byte* blocks);

}  // namespace lapidary
