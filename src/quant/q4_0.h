// ggml's Q4_0: blocks of 32 weights that share one scale, 4.5 bits per weight.
//
// A block is 18 bytes: the scale d as f16, then 16 bytes of codes 0 .. 15. Byte i holds the code of
// weight i in its low half and that of weight i + 16 in its high half. weight = d * (code - 8); d
// is negative where the weight of the largest magnitude is positive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lapidary {

constexpr int64_t kQ4_0Block = 32;
constexpr int64_t kQ4_0BlockBytes = 18;

// Encodes whole blocks, bit for bit as ggml's reference does: the weight of the largest magnitude
// (the first of equals) has code 0, so d is that weight / -8, and the codes are chosen with the
// unrounded d, halves up. The values must be finite.
void q4_0_encode(std::span<const float> values, std::byte* blocks);

}  // namespace lapidary
