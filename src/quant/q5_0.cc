#include "quant/q5_0.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"

namespace lapidary {

void q5_0_encode(std::span<const float> values, std::byte* blocks) {
  constexpr size_t kValues = kQ5_0Block, kHalf = kValues / 2;
  LAPIDARY_CHECK(values.size() % kValues == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kValues, blocks += kQ5_0BlockBytes) {
    const auto block = values.subspan(first, kValues);
    float extreme = 0;
    for (const float x : block)
      if (std::abs(x) > std::abs(extreme)) extreme = x;
    const float d = extreme / -16;
    // Where 1 / d is no number, d is zero as f16 and the codes mean nothing.
    const float per_code = std::abs(d) > 0x1p-126f ? 1 / d : 0;
    uint32_t codes[kValues], fifth_bits = 0;
    for (size_t i = 0; i < kValues; ++i) {
      codes[i] = std::min(31u, static_cast<uint32_t>(block[i] * per_code + 16.5f));
      fifth_bits |= codes[i] >> 4 << i;
    }
    const uint16_t bits = to_float16(d).bits;
    std::memcpy(blocks, &bits, sizeof bits);
    std::memcpy(blocks + sizeof bits, &fifth_bits, sizeof fifth_bits);
    std::byte* const low = blocks + sizeof bits + sizeof fifth_bits;
    for (size_t i = 0; i < kHalf; ++i)
      low[i] = static_cast<std::byte>((codes[i] & 15) | (codes[i + kHalf] & 15) << 4);
  }
}

}  // namespace lapidary
