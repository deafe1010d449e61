// Stands in for the compiler's <immintrin.h> where kernels are compiled for a CPU without AVX-512:
// the 512-bit intrinsics are SIMDe's, made of AVX2. What Debian's SIMDe lacks, or allows where the
// hardware faults, stands below as Intel's guide has it, in the namespace of the kernels, where it
// hides what else has the name. An intrinsic that nobody supplies does not compile.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#ifdef SIMDE_X86_AVX512F_NATIVE
#error "with AVX-512 the compiler's own intrinsics would be used"
#endif

#include <cstring>

#include "lapidary/error.h"

// SIMDe has it under its own name only. 128-bit lanes are moved whole, so it is the other one.
#undef _mm512_shuffle_i64x2
#define _mm512_shuffle_i64x2 _mm512_shuffle_i32x4
#undef _mm512_extractf32x8_ps  // a macro of GCC without optimisation
#undef _mm512_load_si512       // SIMDe's, which takes any address

namespace lapidary::avx512 {
namespace {

using Ints [[gnu::vector_size(64), gnu::may_alias]] = int32_t;
using Halves [[gnu::vector_size(32), gnu::may_alias]] = uint16_t;

// Lane i of what lies at any address.
template <class T>
inline T lane_at(const void* p, int i) {
  T value;
  std::memcpy(&value, static_cast<const T*>(p) + i, sizeof value);
  return value;
}

// Lanes whose bit is 0 are not touched: ASan sees a load or a store past the end as it would fault.
inline __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
  __m512 r = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) r[i] = lane_at<float>(p, i);
  return r;
}
inline __m256i _mm256_maskz_loadu_epi16(__mmask16 mask, const void* p) {
  Halves r = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) r[i] = lane_at<uint16_t>(p, i);
  return reinterpret_cast<__m256i>(r);
}
inline void _mm512_mask_storeu_ps(void* p, __mmask16 mask, __m512 a) {
  for (int i = 0; i < 16; ++i) {
    const float value = a[i];
    if (mask >> i & 1) std::memcpy(static_cast<float*>(p) + i, &value, sizeof value);
  }
}

// An address that is not a multiple of 64 faults.
inline __m512i _mm512_load_si512(const void* p) {
  LAPIDARY_CHECK(reinterpret_cast<uintptr_t>(p) % 64 == 0, "an aligned load");
  return _mm512_loadu_si512(p);
}

inline __m512 _mm512_cvtepi32_ps(__m512i a) {
  __m512 r;
  for (int i = 0; i < 16; ++i) r[i] = static_cast<float>(reinterpret_cast<Ints>(a)[i]);
  return r;
}
inline __m512i _mm512_cvtps_epi32(__m512 a) {
  Ints r;
  for (int i = 0; i < 16; ++i) r[i] = _mm_cvtss_si32(_mm_set_ss(a[i]));
  return reinterpret_cast<__m512i>(r);
}
inline __m512i _mm512_cvtepu16_epi32(__m256i a) {
  Ints r;
  for (int i = 0; i < 16; ++i) r[i] = reinterpret_cast<Halves>(a)[i];
  return reinterpret_cast<__m512i>(r);
}
inline __m512 _mm512_cvtph_ps(__m256i a) {
  __m512 r;
  for (int i = 0; i < 16; ++i) r[i] = _cvtsh_ss(reinterpret_cast<Halves>(a)[i]);
  return r;
}

inline __m256 _mm512_extractf32x8_ps(__m512 a, int half) {
  __m256 r;
  for (int i = 0; i < 8; ++i) r[i] = a[8 * half + i];
  return r;
}

inline int _mm512_reduce_add_epi32(__m512i a) {
  int sum = 0;
  for (int i = 0; i < 16; ++i) sum += reinterpret_cast<Ints>(a)[i];
  return sum;
}
// The upper half against the lower, as GCC does it: of a NaN and a number the lower one stays.
inline float _mm512_reduce_max_ps(__m512 a) {
  for (int n = 8; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a[i] = a[i + n] > a[i] ? a[i + n] : a[i];
  return a[0];
}

}  // namespace
}  // namespace lapidary::avx512
