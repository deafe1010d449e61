// How 16 packed codes spread over 16 lanes of 32 bits, for byte shuffles within 128-bit lanes.
#pragma once

#include <cstdint>

namespace lapidary::simd {

// Lane l takes the one or two bytes that hold code l, then shifts right: codes are a stream of
// bits, least significant first, and 16 codes of b bits are 2b bytes.
struct SpreadTable {
  alignas(64) uint8_t shuffle[64];
  alignas(64) uint32_t shift[16];
};

template <int kBits>
constexpr SpreadTable make_spread_table() {
  SpreadTable table{};
  for (int lane = 0; lane < 16; ++lane) {
    const int bit = lane * kBits;
    const bool two_bytes = bit % 8 + kBits > 8;
    table.shuffle[4 * lane] = static_cast<uint8_t>(bit / 8);
    table.shuffle[4 * lane + 1] = static_cast<uint8_t>(two_bytes ? bit / 8 + 1 : 0x80);
    table.shuffle[4 * lane + 2] = 0x80;  // 0x80: a zero byte
    table.shuffle[4 * lane + 3] = 0x80;
    table.shift[lane] = static_cast<uint32_t>(bit % 8);
  }
  return table;
}

// How 32 packed codes spread over two vectors of 16 lanes of 16 bits, for byte shuffles within
// 128-bit lanes: packing the two vectors to bytes, lane by lane, leaves the codes in order. The low
// half of the source holds codes 0-15, the high half 16-31. A lane's two bytes times `factor`
// have the code on top.
struct WordTable {
  alignas(32) uint8_t shuffle[2][32];
  alignas(32) uint16_t factor[2][16];
};

template <int kBits>
constexpr WordTable make_word_table() {
  WordTable table{};
  for (int vector = 0; vector < 2; ++vector)
    for (int lane = 0; lane < 16; ++lane) {
      const int bit = (8 * vector + lane % 8) * kBits;
      const bool two_bytes = bit % 8 + kBits > 8;
      table.shuffle[vector][2 * lane] = static_cast<uint8_t>(bit / 8);
      table.shuffle[vector][2 * lane + 1] = static_cast<uint8_t>(two_bytes ? bit / 8 + 1 : 0x80);
      table.factor[vector][lane] = static_cast<uint16_t>(1 << (16 - kBits - bit % 8));
    }
  return table;
}

}  // namespace lapidary::simd
