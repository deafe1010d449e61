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

// Values g ... g + 7 of 8 rows of bf16 (or f16) as f32: out[i * stride + r] = rows[r][g + i].
inline void transpose_8_scales(const std::byte* const* rows, int64_t g, bool bf16, float* out,
                               int64_t stride) {
  __m128i v[8], a[8], b[8];
  for (int r = 0; r < 8; ++r)
    v[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + 2 * g));
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
  }
  const auto put = [&](int64_t i, __m128i eight) {
    const __m256 wide =
        bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16))
             : _mm256_cvtph_ps(eight);
    _mm256_storeu_ps(out + i * stride, wide);
  };
  for (int i = 0; i < 4; ++i) {
    put(2 * i, _mm_unpacklo_epi64(b[i], b[i + 4]));
    put(2 * i + 1, _mm_unpackhi_epi64(b[i], b[i + 4]));
  }
}

}  // namespace
}  // namespace lapidary::x86
