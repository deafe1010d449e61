#include "quant/q4_0.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"

namespace lapidary {

void q4_0_encode(std::span<const float> values, std::byte* blocks) {
  constexpr size_t kValues = kQ4_0Block, kHalf = kValues / 2;
  LAPIDARY_CHECK(values.size() % kValues == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kValues, blocks += kQ4_0BlockBytes) {
    const auto block = values.subspan(first, kValues);
    float extreme = 0;
    for (const float x : block)
      if (std::abs(x) > std::abs(extreme)) extreme = x;
    const float d = extreme / -8;
    // Where 1 / d is no number, d is zero as f16 and the codes mean nothing.
    const float per_code = std::abs(d) > 0x1p-126f ? 1 / d : 0;
    int codes[kValues];
    for (size_t i = 0; i < kValues; ++i)
      codes[i] = std::min(15, static_cast<int>(block[i] * per_code + 8.5f));
    const uint16_t bits = to_float16(d).bits;
    std::memcpy(blocks, &bits, sizeof bits);
    for (size_t i = 0; i < kHalf; ++i)
      blocks[sizeof bits + i] = static_cast<std::byte>(codes[i] | codes[i + kHalf] << 4);
  }
}

}  // namespace lapidary
