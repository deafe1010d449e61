// The vocabulary of simd/README.md on AVX2 with FMA and F16C: 16 floats are two registers.
#pragma once

#include <cstring>
#include <immintrin.h>

#include "kernels/simd/codes.h"
#include "kernels/x86/avx2_quantized.h"
#include "kernels/x86/load_codes.h"

namespace lapidary::avx2 {
namespace {

// One register's lanes of an F.
struct Part {
  static constexpr int kLanes = 8;
  __m256 v;

  static Part zero() { return {_mm256_setzero_ps()}; }
  static Part load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Part load(const BFloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  static Part load(const Float16* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  // For several uses: otherwise GCC makes the load part of each.
  static Part load_once(const float* p) {
    Part part = load(p);
    asm("" : "+x"(part.v));
    return part;
  }
};
inline void store(float* p, Part a) {
  _mm256_storeu_ps(p, a.v);
}
inline Part fma(Part a, Part b, Part c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}

struct F {
  __m256 lo;  // lanes 0-7
  __m256 hi;  // lanes 8-15

  using Part = avx2::Part;
  static constexpr int kRows = 2;  // 2 x 6 sums, 2 weights and an activation: 15 of 16 registers
  static constexpr int kTokens = 6;
  static constexpr int kGemmRows = 6;  // sums of a product of packed operands: 6 x 16
  static constexpr int kGemmVectors = 1;

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  template <class T>
  static F broadcast(T x) {
    return broadcast(to_float(x));
  }
  template <class T>
  static F load(const T* p) {
    return {Part::load(p).v, Part::load(p + 8).v};
  }
  template <class T>
  static F load(const T* p, int n) {
    T copy[16] = {};
    std::memcpy(copy, p, static_cast<size_t>(n) * sizeof(T));
    return load(copy);
  }

  static F from(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

  template <int kBits>
  struct Codes;
};

inline void store(float* p, F a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void store(float* p, F a, int n) {
  float copy[16];
  store(copy, a);
  std::memcpy(p, copy, static_cast<size_t>(n) * sizeof(float));
}
inline F operator+(F a, F b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F operator-(F a, F b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F operator*(F a, F b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F operator/(F a, F b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline F min(F a, F b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline F max(F a, F b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline F abs(F a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline F fma(F a, F b, F c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F round(F a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
inline F exp2_int(F a) {
  const auto half = [](__m256 x) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  };
  return {half(a.lo), half(a.hi)};
}

inline float sum(F a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float max_lane(F a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

template <int kBits>
struct F::Codes {
  static constexpr simd::SpreadTable kTable = simd::make_spread_table<kBits>();
  __m256 scale;
  __m256 bias;

  void set(F new_scale, F new_bias) {
    scale = new_scale.lo;  // the same in every lane
    bias = new_bias.lo;
  }
  F decode(const uint8_t* p) const {
    const __m256i packed = _mm256_broadcastsi128_si256(load_codes<kBits>(p));
    return {half(packed, 0), half(packed, 1)};
  }

 private:
  __m256 half(__m256i packed, int which) const {
    const auto at = [which](const auto* table, int lanes) {
      return _mm256_load_si256(reinterpret_cast<const __m256i*>(table + which * lanes));
    };
    const __m256i bytes = _mm256_shuffle_epi8(packed, at(kTable.shuffle, 32));
    const __m256i shifted = _mm256_srlv_epi32(bytes, at(kTable.shift, 8));
    const __m256i codes = _mm256_and_si256(shifted, _mm256_set1_epi32((1 << kBits) - 1));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(codes), scale, bias);
  }
};

}  // namespace
}  // namespace lapidary::avx2
