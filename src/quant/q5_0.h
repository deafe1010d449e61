// ggml's Q5_0: blocks of 32 weights that share one scale, 5.5 bits per weight.
//
// A block is 22 bytes: the scale d as f16, 4 bytes with the fifth bits of the codes, that of weight
// i in bit i, then 16 bytes with the other four: byte i holds those of weight i in its low half and
// of weight i + 16 in its high half. weight = d * (code - 16); d is negative where the weight of
// the largest magnitude is positive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lapidary {

constexpr int64_t kQ5_0Block = 32;
constexpr int64_t kQ5_0BlockBytes = 22;

// Encodes whole blocks, bit for bit as ggml's reference does: as Q4_0 (q4_0.h) with twice the
// codes. The values must be finite.
void q5_0_encode(std::span<const float> values, std::byte* blocks);

}  // namespace lapidary
