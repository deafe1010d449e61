#include "quant/q5_0.h"

#include <cstring>

#include "base/fail.h"
#include "base/float16.h"
#include "quant/extreme_codes.h"

namespace lapidary {

void q5_0_encode(std::span<const float> values, std::byte* blocks) {
  constexpr size_t kValues = kQ5_0Block, kHalf = kValues / 2;
  LAPIDARY_CHECK(values.size() % kValues == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kValues, blocks += kQ5_0BlockBytes) {
    const ExtremeCodes<5> block(values.subspan(first).first<kValues>());
    uint32_t fifth_bits = 0;
    for (size_t i = 0; i < kValues; ++i) fifth_bits |= block.codes[i] >> 4 << i;
    const uint16_t bits = to_float16(block.d).bits;
    std::memcpy(blocks, &bits, sizeof bits);
    std::memcpy(blocks + sizeof bits, &fifth_bits, sizeof fifth_bits);
    std::byte* const low = blocks + sizeof bits + sizeof fifth_bits;
    for (size_t i = 0; i < kHalf; ++i)
      low[i] = static_cast<std::byte>((block.codes[i] & 15) | (block.codes[i + kHalf] & 15) << 4);
  }
}

}  // namespace lapidary
