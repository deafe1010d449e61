// Bytes on AVX-512 with VNNI, for simd/quantized.h: vpdpbusd multiplies quads of unsigned codes and
// signed activations and adds them to 32-bit sums, without saturation.
#pragma once

#include <immintrin.h>

#include "kernels/simd/codes.h"
#include "kernels/simd/quantized.h"
#include "kernels/x86/load_codes.h"
#include "kernels/x86/transpose.h"

namespace lapidary::avx512 {
namespace {

struct I {
  __m512i v;
};
inline I operator+(I a, I b) {
  return {_mm512_add_epi32(a.v, b.v)};
}

struct Q {
  static constexpr int kVectors = 2;  // of 16 rows, x
  static constexpr int kTokens = 6;   // 12 sums of bytes and as many of floats, and 3 of codes

  static constexpr bool kOffsetsBytes = false;
  // Bytes of a row that few tokens ask for ahead: Zen 5 does not foresee 16 streams by itself.
  static constexpr int64_t kAhead = 512;

  static void begin() {}
  static void end() {}

  template <class F>
  static void store_codes(int8_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v)));
  }

  template <int kBits>
  static void arrange(const int8_t* natural, int8_t* out) {
    __m512i a = _mm512_loadu_si512(natural);
    if constexpr (kBits == 4) a = deinterleave(a);
    if constexpr (kBits == 2) {  // codes 0, 4, ... and 2, 6, ... and 1, 5, ... and 3, 7, ...
      a = deinterleave_halves(deinterleave(a));
      a = _mm512_shuffle_i64x2(a, a, _MM_SHUFFLE(3, 1, 2, 0));
    }
    _mm512_storeu_si512(out, a);
  }

  template <int kGroups>
  static void transpose_scales(const std::byte* const* rows, int64_t g, bool bf16, float* out,
                               int64_t stride) {
    x86::transpose_scales<kGroups>(rows, g, bf16, out, stride);
    x86::transpose_scales<kGroups>(rows + 8, g, bf16, out + 8, stride);
  }

  template <int kBits, int kTokens>
  [[gnu::always_inline]] static void dot_units(const uint8_t* const* rows, int64_t offset,
                                               int64_t units, const int8_t* codes,
                                               I (*out)[kQuantGroups]) {
    constexpr int64_t kUnit = kQuantUnit * kBits / 8;
    int64_t u = 0;
    for (; u + 2 <= units; u += 2)
      dot_two<kBits, kTokens>(rows, offset + u * kUnit, codes + u * kQuantUnit, out, u);
    if (u < units)
      dot_one<kBits, kTokens>(rows, offset + u * kUnit, codes + u * kQuantUnit, out, u);
  }

  template <int kBits>
  static void pack_unit(const uint8_t* const* rows, int64_t offset, const simd::QuadOrder& order,
                        uint8_t* out) {
    if constexpr (kBits == 4) return pack_nibbles(rows, offset, order, out);
    __m512i v[16];
    for (int r = 0; r < 16; ++r) v[r] = unpack<kBits>(rows[r] + offset);
    transpose_16x16(v);
    for (int q = 0; q < 16; ++q) _mm512_storeu_si512(out + 64 * order.place[q], v[q]);
  }

  template <int kBits, int kVectors, int kTokens>
  [[gnu::always_inline]] static void dot_quads(const uint8_t* unit, int64_t apart, int count,
                                               const int8_t* codes, I (*dots)[kTokens], bool add) {
    __m512i sums[kVectors][kTokens];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) sums[v][t] = add ? dots[v][t].v : _mm512_setzero_si512();
#pragma GCC unroll 16
    for (int quad = 0; quad < count; ++quad) {
      __m512i w[kVectors];
      for (int v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(unit + v * apart + 64 * quad);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const __m512i x = _mm512_set1_epi32(
            read_as<int32_t>(reinterpret_cast<const uint8_t*>(codes + t * kQuantBlock + 4 * quad)));
        for (int v = 0; v < kVectors; ++v) sums[v][t] = _mm512_dpbusd_epi32(sums[v][t], w[v], x);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) dots[v][t].v = sums[v][t];
  }

 private:
  static __m256i load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static __m512i join(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }

  // 64 bytes to their even ones, then their odd ones.
  static __m512i deinterleave(__m512i a) {
    return join(_mm512_cvtepi16_epi8(a), _mm512_cvtepi16_epi8(_mm512_srli_epi16(a, 8)));
  }
  // The same within each half.
  static __m512i deinterleave_halves(__m512i a) {
    const __m256i even = _mm512_cvtepi16_epi8(a);
    const __m256i odd = _mm512_cvtepi16_epi8(_mm512_srli_epi16(a, 8));
    return _mm512_shuffle_i64x2(join(even, odd), join(even, odd), _MM_SHUFFLE(3, 1, 2, 0));
  }

  // 64 codes of 3, 5 or 6 bits, as on AVX2 but all at once.
  template <int kBits>
  static __m512i spread(const uint8_t* p) {
    static constexpr simd::WordTable kTable = simd::make_word_table<kBits>();
    __m512i bytes = _mm512_castsi128_si512(load_codes<kBits>(p));
    bytes = _mm512_inserti32x4(bytes, load_codes<kBits>(p + 2 * kBits), 1);
    bytes = _mm512_inserti32x4(bytes, load_codes<kBits>(p + 4 * kBits), 2);
    bytes = _mm512_inserti32x4(bytes, load_codes<kBits>(p + 6 * kBits), 3);
    const auto words = [&](int i) {
      const __m512i word =
          _mm512_shuffle_epi8(bytes, _mm512_broadcast_i64x4(load(kTable.shuffle[i])));
      return _mm512_srli_epi16(
          _mm512_mullo_epi16(word, _mm512_broadcast_i64x4(load(kTable.factor[i]))), 16 - kBits);
    };
    return _mm512_packus_epi16(words(0), words(1));
  }

  // The codes of a unit, at their unit_position().
  template <int kBits>
  [[gnu::always_inline]] static __m512i unpack(const uint8_t* p) {
    if constexpr (kBits == 8) return _mm512_loadu_si512(p);
    if constexpr (kBits == 4) {
      const __m256i bytes = load(p);
      return _mm512_and_si512(join(bytes, _mm256_srli_epi16(bytes, 4)), _mm512_set1_epi8(15));
    }
    if constexpr (kBits == 2) {
      const __m512i bytes =
          _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      const __m512i shift = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
      return _mm512_and_si512(_mm512_srlv_epi32(bytes, shift), _mm512_set1_epi8(3));
    }
    if constexpr (kBits == 3 || kBits == 5 || kBits == 6) return spread<kBits>(p);
  }

  // Two units of 16 rows. Lanes 0-7 of a row's sums belong to the first, lanes 8-15 to the second.
  template <int kBits, int kTokens>
  [[gnu::always_inline]] static void dot_two(const uint8_t* const* rows, int64_t offset,
                                             const int8_t* codes, I (*out)[kQuantGroups],
                                             int64_t u) {
    constexpr int64_t kUnit = kQuantUnit * kBits / 8;
    __m512i x[kTokens][2];
    for (int t = 0; t < kTokens; ++t) {
      const int8_t* p = codes + t * kQuantBlock;
      if constexpr (kBits == 4) {  // the codes of low nibbles, then those of high ones
        x[t][0] = join(load(p), load(p + 64));
        x[t][1] = join(load(p + 32), load(p + 96));
      } else {
        x[t][0] = _mm512_loadu_si512(p);
        x[t][1] = _mm512_loadu_si512(p + 64);
      }
    }
    __m512i dots[kTokens][16];
    for (int r = 0; r < 16; ++r) {
      const uint8_t* row = rows[r] + offset;
      for (int64_t at = 0; at < 2 * kUnit; at += 64) _mm_prefetch(row + kAhead + at, _MM_HINT_T0);
      if constexpr (kBits == 4) {
        const __m512i mask = _mm512_set1_epi8(15), bytes = _mm512_loadu_si512(row);
        const __m512i low = _mm512_and_si512(bytes, mask);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
        for (int t = 0; t < kTokens; ++t)
          dots[t][r] = _mm512_dpbusd_epi32(
              _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, x[t][0]), high, x[t][1]);
      } else {
        const __m512i first = unpack<kBits>(row), second = unpack<kBits>(row + kUnit);
        for (int t = 0; t < kTokens; ++t) {
          const __m512i a = _mm512_dpbusd_epi32(_mm512_setzero_si512(), first, x[t][0]);
          const __m512i b = _mm512_dpbusd_epi32(_mm512_setzero_si512(), second, x[t][1]);
          dots[t][r] = _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, _MM_SHUFFLE(1, 0, 1, 0)),
                                        _mm512_shuffle_i64x2(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
        }
      }
    }
    for (int t = 0; t < kTokens; ++t) sum_halves_of_each(dots[t], out[t][u].v, out[t][u + 1].v);
  }

  // The last unit of a matrix whose width is an odd number of them.
  template <int kBits, int kTokens>
  static void dot_one(const uint8_t* const* rows, int64_t offset, const int8_t* codes,
                      I (*out)[kQuantGroups], int64_t u) {
    for (int t = 0; t < kTokens; ++t) {
      const __m512i x = _mm512_loadu_si512(codes + t * kQuantBlock);
      alignas(64) int32_t sums[16];
      for (int r = 0; r < 16; ++r)
        sums[r] = _mm512_reduce_add_epi32(
            _mm512_dpbusd_epi32(_mm512_setzero_si512(), unpack<kBits>(rows[r] + offset), x));
      out[t][u].v = _mm512_load_si512(sums);
    }
  }

  // Lane r of `first`: the sum over lanes 0-7 of v[r]; of `second`: over lanes 8-15.
  static void sum_halves_of_each(const __m512i* v, __m512i& first, __m512i& second) {
    const auto four = [](const __m512i* a) {
      const auto pair = [](__m512i x, __m512i y) {
        return _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
      };
      const __m512i ab = pair(a[0], a[1]), cd = pair(a[2], a[3]);
      return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    };
    // In each: 128-bit lanes 0 and 1 of the first half, 2 and 3 of the second, for 4 rows.
    const auto eight = [](__m512i a, __m512i b) {
      return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, _MM_SHUFFLE(2, 0, 2, 0)),
                              _mm512_shuffle_i32x4(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
    };
    const __m512i low = eight(four(v), four(v + 4)), high = eight(four(v + 8), four(v + 12));
    first = _mm512_shuffle_i32x4(low, high, _MM_SHUFFLE(2, 0, 2, 0));
    second = _mm512_shuffle_i32x4(low, high, _MM_SHUFFLE(3, 1, 3, 1));
  }

  // Of 4 bits, which are transposed as they lie, two to a byte, and then taken apart.
  static void pack_nibbles(const uint8_t* const* rows, int64_t offset, const simd::QuadOrder& order,
                           uint8_t* out) {
    __m512i a[8], b[8];
    for (int i = 0; i < 8; ++i) {  // rows 0-3 with 4-7, then 8-11 with 12-15
      const int r = i % 4 + i / 4 * 8;
      a[i] = join(load(rows[r] + offset), load(rows[r + 4] + offset));
    }
    for (int i = 0; i < 8; i += 2) {
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {  // a[i + c]: of 8 rows, column c of each 128-bit lane
      a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
      a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
      a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
      a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    const __m512i mask = _mm512_set1_epi8(15);
    const auto put = [&](int column, __m512i codes) {
      _mm512_storeu_si512(out + 64 * order.place[column], _mm512_and_si512(codes, mask));
      _mm512_storeu_si512(out + 64 * order.place[8 + column],
                          _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask));
    };
    for (int c = 0; c < 4; ++c) {
      put(c, _mm512_shuffle_i32x4(a[c], a[4 + c], _MM_SHUFFLE(2, 0, 2, 0)));
      put(4 + c, _mm512_shuffle_i32x4(a[c], a[4 + c], _MM_SHUFFLE(3, 1, 3, 1)));
    }
  }

  // 16 rows of 16 32-bit values, in place.
  static void transpose_16x16(__m512i* v) {
    __m512i a[16], b[16];
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
      a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {  // b[4 i + c]: column c of each 128-bit lane, rows 4 i ...
      b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
      b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
      b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
      b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int c = 0; c < 4; ++c) {
      const __m512i p = _mm512_shuffle_i32x4(b[c], b[4 + c], _MM_SHUFFLE(2, 0, 2, 0));
      const __m512i q = _mm512_shuffle_i32x4(b[c], b[4 + c], _MM_SHUFFLE(3, 1, 3, 1));
      const __m512i r = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], _MM_SHUFFLE(2, 0, 2, 0));
      const __m512i s = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], _MM_SHUFFLE(3, 1, 3, 1));
      v[c] = _mm512_shuffle_i32x4(p, r, _MM_SHUFFLE(2, 0, 2, 0));
      v[8 + c] = _mm512_shuffle_i32x4(p, r, _MM_SHUFFLE(3, 1, 3, 1));
      v[4 + c] = _mm512_shuffle_i32x4(q, s, _MM_SHUFFLE(2, 0, 2, 0));
      v[12 + c] = _mm512_shuffle_i32x4(q, s, _MM_SHUFFLE(3, 1, 3, 1));
    }
  }
};

}  // namespace
}  // namespace lapidary::avx512
