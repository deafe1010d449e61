// Transpositions with AVX2 registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <immintrin.h>

namespace lapidary::x86 {
namespace {

// 8 rows of 8 32-bit values, in place.
inline void transpose_8x8(__m256i* v) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
    v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
  }
}

// kGroups (4 or 8) values of 8 rows of bf16 (or f16) as f32, from g on:
// out[i * stride + r] = rows[r][g + i].
template <int kGroups>
void transpose_scales(const std::byte* const* rows, int64_t g, bool bf16, float* out,
                      int64_t stride) {
  const auto load = [&](int r) {
    const auto* p = reinterpret_cast<const __m128i*>(rows[r] + 2 * g);
    return kGroups == 8 ? _mm_loadu_si128(p) : _mm_loadl_epi64(p);
  };
  __m256i v[4], a[4];  // pairs of values; rows r and r + 4 in the halves
  for (int r = 0; r < 4; ++r)
    v[r] = _mm256_inserti128_si256(_mm256_castsi128_si256(load(r)), load(r + 4), 1);
  for (int i = 0; i < 2; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
  // A pair of all rows: the first value in the low half of each lane.
  const auto put = [&](int i, __m256i pair) {
    const __m256i second = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    __m256 values[2];
    if (bf16) {
      values[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
      values[1] = _mm256_castsi256_ps(_mm256_and_si256(pair, second));
    } else {
      const __m256i words =
          _mm256_packus_epi32(_mm256_andnot_si256(second, pair), _mm256_srli_epi32(pair, 16));
      const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
      values[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(ordered));
      values[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(ordered, 1));
    }
    _mm256_storeu_ps(out + 2 * i * stride, values[0]);
    _mm256_storeu_ps(out + (2 * i + 1) * stride, values[1]);
  };
  for (int i = 0; i < kGroups / 4; ++i) {
    put(2 * i, _mm256_unpacklo_epi64(a[i], a[i + 2]));
    put(2 * i + 1, _mm256_unpackhi_epi64(a[i], a[i + 2]));
  }
}

}  // namespace
}  // namespace lapidary::x86
