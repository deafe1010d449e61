// ggml's Q4_K: blocks of 256 weights in 8 groups of 32, 4.5 bits per weight.
//
// A block is 144 bytes: d and dmin as f16, 12 bytes with a scale s and a minimum m of 6 bits for
// each group, then 128 bytes of codes 0 .. 15. weight = (d * s) * code - dmin * m. Groups 0 .. 3
// have s and m in the low 6 bits of bytes 0 .. 3 and 4 .. 7; groups 4 .. 7 have their low 4 bits
// in the halves of bytes 8 .. 11 and their high 2 bits in the high bits of bytes 0 .. 3 and 4 .. 7.
// Codes lie in runs of 32 bytes, one for two groups: the even group's in the low halves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lapidary {

constexpr int64_t kQ4KBlock = 256;
constexpr int64_t kQ4KBlockBytes = 144;

// Encodes whole blocks such that the sum of squared errors is small: least squares over a number of
// steps for each group, then over the neighbours of its rounded scale and minimum. The values must
// be finite.
void q4_k_encode(std::span<const float> values, std::byte* blocks);

}  // namespace lapidary
