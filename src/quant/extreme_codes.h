// What the block formats without a bias have in common: the value of the largest magnitude has the
// lowest code.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace lapidary {

// Codes of one block of 32 values, w = d (code - 2^(bits - 1)), and its d.
template <int kBits>
struct ExtremeCodes {
  static constexpr size_t kValues = 32;
  float d;
  uint32_t codes[kValues];

  explicit ExtremeCodes(std::span<const float, kValues> block) {
    constexpr int kHalf = 1 << (kBits - 1);
    float extreme = 0;
    for (const float x : block)
      if (std::abs(x) > std::abs(extreme)) extreme = x;
    d = extreme / -kHalf;
    // Where 1 / d is no number, d is zero as f16 and the codes mean nothing.
    const float per_code = std::abs(d) > 0x1p-126f ? 1 / d : 0;
    for (size_t i = 0; i < kValues; ++i)
      codes[i] =
          std::min(2u * kHalf - 1, static_cast<uint32_t>(block[i] * per_code + (kHalf + 0.5f)));
  }
};

}  // namespace lapidary
