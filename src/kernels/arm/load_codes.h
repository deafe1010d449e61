// Loads of exactly the bytes that hold 16 codes, so that the last row of a file is not overrun.
#pragma once

#include <arm_neon.h>
#include <cstdint>
#include <cstring>

namespace lapidary::neon {
namespace {

template <class T>
inline uint64_t read_as(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <int kBits>
inline uint8x16_t load_codes(const uint8_t* p) {
  if constexpr (kBits == 8) {
    return vld1q_u8(p);
  } else {
    uint64_t first = 0, rest = 0;
    if constexpr (kBits == 2) first = read_as<uint32_t>(p);
    if constexpr (kBits == 3) first = read_as<uint32_t>(p) | read_as<uint16_t>(p + 4) << 32;
    if constexpr (kBits >= 4) first = read_as<uint64_t>(p);
    if constexpr (kBits == 5) rest = read_as<uint16_t>(p + 8);
    if constexpr (kBits == 6) rest = read_as<uint32_t>(p + 8);
    return vcombine_u8(vcreate_u8(first), vcreate_u8(rest));
  }
}

}  // namespace
}  // namespace lapidary::neon
