#include "quant/q8_0.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"

namespace lapidary {

namespace {

// What roundf gives for |x| < 2^22, in a form that compilers vectorise on any CPU. The constant is
// the largest float below a half: with a half itself, its predecessor would round up.
int round_half_away(float x) {
  return static_cast<int>(x + std::copysign(0x1.fffffep-2f, x));
}

}  // namespace

void q8_0_encode(std::span<const float> values, std::byte* blocks) {
  constexpr size_t kValues = kQ8_0Block;
  LAPIDARY_CHECK(values.size() % kValues == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kValues, blocks += kQ8_0BlockBytes) {
    const auto block = values.subspan(first, kValues);
    float largest = 0;
    for (const float x : block) largest = std::max(largest, std::abs(x));
    const float d = largest / 127;
    // Where 1 / d is no number, d is zero as f16 and the codes mean nothing.
    const float per_code = d > 0x1p-126f ? 1 / d : 0;
    int8_t codes[kValues];
    for (size_t i = 0; i < kValues; ++i)
      codes[i] = static_cast<int8_t>(round_half_away(block[i] * per_code));
    const uint16_t bits = to_float16(d).bits;
    std::memcpy(blocks, &bits, sizeof bits);
    std::memcpy(blocks + sizeof bits, codes, sizeof codes);
  }
}

}  // namespace lapidary
