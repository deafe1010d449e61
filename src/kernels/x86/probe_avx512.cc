// What the units of AVX-512 do at most; assembly statements for the reason given in probe_avx2.cc.
#include <immintrin.h>

#include "kernels/x86/probes.h"

namespace lapidary::avx512 {

void probe_f32(int64_t iterations) {
  __m512 sums[kProbeChains] = {};
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sums[c]) : "v"(a), "v"(b));
}

void probe_vnni(int64_t iterations) {
  __m512i sums[kProbeChains] = {};
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("vpdpbusd %2, %1, %0" : "+v"(sums[c]) : "v"(a), "v"(b));
}

void probe_bf16(int64_t iterations) {
  __m512 sums[kProbeChains] = {};
  const __m512i a = _mm512_set1_epi16(0x3f00), b = _mm512_set1_epi16(0x3e80);  // 0.5 and 0.25
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sums[c]) : "v"(a), "v"(b));
}

void probe_f16(int64_t iterations) {
  __m512i sums[kProbeChains] = {};
  const __m512i a = _mm512_set1_epi16(0x2c00);  // 2^-4: a sum comes to rest at 16, being finite
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 16
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("vfmadd231ph %1, %1, %0" : "+v"(sums[c]) : "v"(a));
}

}  // namespace lapidary::avx512
