// Rounds f32 to bf16 and packs tiles of it (simd/bf16_tiles.h), with AVX-512.
//
// A register holds a pair of k for each of 16 rows or columns: 16 of them are a tile of columns,
// and turned over one of rows. Rounding is by integers, so that it is to_bfloat16()'s to the bit;
// AVX512-BF16's own instruction makes 0 of subnormal numbers.
#pragma once

#include <cstdint>
#include <immintrin.h>

#include "kernels/kernels.h"

namespace lapidary::avx512 {
namespace {

// 16 floats, rounded, in the upper halves of 32 bits; what is in the lower ones is left there.
inline __m512i rounded_upper(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
}

// `first` in the lower halves, `second` in the upper ones.
inline __m512i bf16_pairs(__m512 first, __m512 second) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  return _mm512_or_si512(_mm512_srli_epi32(rounded_upper(first), 16),
                         _mm512_and_si512(rounded_upper(second), upper));
}

// 32 floats in their order.
inline __m512i bf16_in_order(const float* p) {
  const __m512i pairs = bf16_pairs(_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16));
  // Value i is the lower half of pair i, value i + 16 the upper half.
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                      22, 24, 26, 28, 30, 1,  3,  5,  7,  9,  11,
                                                      13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), pairs);
}

// 16 rows of 16 values of 32 bits, in place.
inline void transpose_16x16(__m512i* v) {
  __m512i a[16], b[16];
  for (int i = 0; i < 8; ++i) {
    a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
  // b[4 i + c]: column 4 l + c of rows 4 i ... 4 i + 3, in lane l of 128 bits.
  for (int i = 0; i < 4; ++i) {
    b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int c = 0; c < 4; ++c) {
    const __m512i even_above = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x88);  // lanes 0, 2 of each
    const __m512i odd_above = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xdd);   // lanes 1, 3
    const __m512i even_below = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x88);
    const __m512i odd_below = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xdd);
    v[c] = _mm512_shuffle_i32x4(even_above, even_below, 0x88);
    v[4 + c] = _mm512_shuffle_i32x4(odd_above, odd_below, 0x88);
    v[8 + c] = _mm512_shuffle_i32x4(even_above, even_below, 0xdd);
    v[12 + c] = _mm512_shuffle_i32x4(odd_above, odd_below, 0xdd);
  }
}

struct Bf16Packer {
  template <Bf16Operand kOperand>
  static void along_k(const float* p, int64_t stride, BFloat16* out) {
    __m512i rows[16];
    for (int i = 0; i < 16; ++i) rows[i] = bf16_in_order(p + i * stride);
    if (kOperand == Bf16Operand::kCols) transpose_16x16(rows);
    store(rows, out);
  }
  template <Bf16Operand kOperand>
  static void across_k(const float* p, int64_t k_stride, BFloat16* out) {
    __m512i pairs[16];
    for (int i = 0; i < 16; ++i)
      pairs[i] = bf16_pairs(_mm512_loadu_ps(p + 2 * i * k_stride),
                            _mm512_loadu_ps(p + (2 * i + 1) * k_stride));
    if (kOperand == Bf16Operand::kRows) transpose_16x16(pairs);
    store(pairs, out);
  }

 private:
  static void store(const __m512i* tile, BFloat16* out) {
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + 32 * i, tile[i]);
  }
};

}  // namespace
}  // namespace lapidary::avx512
