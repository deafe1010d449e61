#include "quant/q4_0.h"

#include <cstring>

#include "base/fail.h"
#include "base/float16.h"
#include "quant/extreme_codes.h"

namespace lapidary {

void q4_0_encode(std::span<const float> values, std::byte* blocks) {
  constexpr size_t kValues = kQ4_0Block, kHalf = kValues / 2;
  LAPIDARY_CHECK(values.size() % kValues == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kValues, blocks += kQ4_0BlockBytes) {
    const ExtremeCodes<4> block(values.subspan(first).first<kValues>());
    const uint16_t bits = to_float16(block.d).bits;
    std::memcpy(blocks, &bits, sizeof bits);
    for (size_t i = 0; i < kHalf; ++i)
      blocks[sizeof bits + i] =
          static_cast<std::byte>(block.codes[i] | block.codes[i + kHalf] << 4);
  }
}

}  // namespace lapidary
