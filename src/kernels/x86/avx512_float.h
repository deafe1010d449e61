// The vocabulary of simd/README.md on AVX-512 (F, BW, DQ, VL): 16 floats are one register.
#pragma once

#include <cstring>
#include <immintrin.h>

#include "kernels/simd/codes.h"
#include "kernels/x86/avx512_quantized.h"
#include "kernels/x86/load_codes.h"

namespace lapidary::avx512 {
namespace {

inline __mmask16 first_lanes(int n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}

struct F {
  __m512 v;

  using Part = F;
  static constexpr int kLanes = 16;
  static constexpr int kRows = 4;  // 4 x 6 sums, 4 weights and an activation: 29 of 32 registers
  static constexpr int kTokens = 6;
  static constexpr int kGemmRows = 12;  // sums of a product of packed operands: 12 x 32
  static constexpr int kGemmVectors = 2;

  static F zero() { return {_mm512_setzero_ps()}; }
  static F broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static F broadcast(Float16 x) { return broadcast(to_float(x)); }
  static F broadcast(
      BFloat16 x) {  // in vector registers throughout: no trip through a scalar float
    return {_mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_set1_epi16(static_cast<int16_t>(x.bits)), 16))};
  }
  static F load(const float* p) { return {_mm512_loadu_ps(p)}; }
  // For several uses: otherwise GCC makes the load part of each.
  static F load_once(const float* p) {
    F f = load(p);
#ifdef __AVX512F__  // not where tests emulate it: there is no such register
    asm("" : "+v"(f.v));
#endif
    return f;
  }
  static F load(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
  }
  static F load(const BFloat16* p) {
    return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load(const BFloat16* p, int n) {
    return from_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
  }
  static F load(const Float16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static F load(const Float16* p, int n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
  }

  static F from(I a) {
    return {_mm512_cvtepi32_ps(a.v)};
  }

  template <int kBits>
  struct Codes;

 private:
  static F from_bf16(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
};

inline void store(float* p, F a) {
  _mm512_storeu_ps(p, a.v);
}
inline void store(float* p, F a, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
inline F operator+(F a, F b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline F operator-(F a, F b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline F operator*(F a, F b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline F operator/(F a, F b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline F min(F a, F b) {
  return {_mm512_min_ps(a.v, b.v)};
}
inline F max(F a, F b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline F abs(F a) {
  return {_mm512_abs_ps(a.v)};
}
inline F fma(F a, F b, F c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline F round(F a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline F exp2_int(F a) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}

inline float sum(F a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float max_lane(F a) {
  return _mm512_reduce_max_ps(a.v);
}

alignas(64) constexpr uint32_t kNibbleShift[16] = {0, 4, 8, 12, 16, 20, 24, 28,
                                                   0, 4, 8, 12, 16, 20, 24, 28};

template <int kBits>
struct F::Codes {
  static constexpr simd::SpreadTable kTable = simd::make_spread_table<kBits>();
  // Up to 4 bits: `first` is the 16 weights that a code can mean, and decoding is one look-up.
  // Above: the scale, with `second` the bias.
  __m512 first;
  __m512 second;

  void set(F scale, F bias) {
    if constexpr (kBits <= 4) {
      const __m512 codes = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
      first = _mm512_fmadd_ps(codes, scale.v, bias.v);
    } else {
      first = scale.v;
      second = bias.v;
    }
  }
  F decode(const uint8_t* p) const {
    if constexpr (kBits == 4) {  // 4 bytes for lanes 0-7, 4 for lanes 8-15; a look-up reads 4 bits
      const __m512i low = _mm512_set1_epi32(read_as<int32_t>(p));
      const __m512i words = _mm512_mask_set1_epi32(low, 0xff00, read_as<int32_t>(p + 4));
      const __m512i at_bottom = _mm512_srlv_epi32(words, _mm512_load_si512(kNibbleShift));
      return {_mm512_permutexvar_ps(at_bottom, first)};
    }
    const __m512i bytes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_codes<kBits>(p)),
                                              _mm512_load_si512(kTable.shuffle));
    __m512i codes = _mm512_srlv_epi32(bytes, _mm512_load_si512(kTable.shift));
    codes = _mm512_and_si512(codes, _mm512_set1_epi32((1 << kBits) - 1));
    if constexpr (kBits < 4) return {_mm512_permutexvar_ps(codes, first)};
    return {_mm512_fmadd_ps(_mm512_cvtepi32_ps(codes), first, second)};
  }
};

}  // namespace
}  // namespace lapidary::avx512
