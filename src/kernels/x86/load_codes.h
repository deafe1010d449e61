// Loads of exactly the bytes that hold 16 codes, so that the last row of a file is not overrun.
#pragma once

#include <cstdint>
#include <cstring>
#include <immintrin.h>

namespace lapidary {
namespace {

template <class T>
inline T read_as(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <int kBits>
inline __m128i load_codes(const uint8_t* p) {
  if constexpr (kBits == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if constexpr (kBits == 2) return _mm_cvtsi32_si128(read_as<int32_t>(p));
  if constexpr (kBits == 3)
    return _mm_insert_epi16(_mm_cvtsi32_si128(read_as<int32_t>(p)), read_as<int16_t>(p + 4), 2);
  const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  if constexpr (kBits == 5) return _mm_insert_epi16(first, read_as<int16_t>(p + 8), 4);
  if constexpr (kBits == 6) return _mm_insert_epi32(first, read_as<int32_t>(p + 8), 2);
  return first;
}

}  // namespace
}  // namespace lapidary
