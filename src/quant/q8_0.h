// ggml's Q8_0: blocks of 32 weights that share one scale, 8.5 bits per weight.
//
// A block is 34 bytes: the scale d as f16, then 32 codes as signed bytes. weight = d * code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lapidary {

constexpr int64_t kQ8_0Block = 32;
constexpr int64_t kQ8_0BlockBytes = 34;

// Encodes whole blocks, bit for bit as ggml's reference does: d is the largest magnitude / 127, and
// the codes are chosen with the unrounded d, halves away from zero. The values must be finite.
void q8_0_encode(std::span<const float> values, std::byte* blocks);

}  // namespace lapidary
