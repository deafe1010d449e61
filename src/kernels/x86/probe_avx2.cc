// What the units of AVX2 do at most. The loops are assembly statements because the operands never
// change: of an intrinsic, the compiler would compute the product once and for all turns.
#include <immintrin.h>

#include "kernels/x86/probes.h"

namespace lapidary::avx2 {

void probe_f32(int64_t iterations) {
  __m256 sums[kProbeChains] = {};
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sums[c]) : "x"(a), "x"(b));
}

// The cheapest form: products of pairs summed in 16 bits, which overflow after a few terms unless
// something clears them.
void probe_int8_short(int64_t iterations) {
  __m256i sums[kProbeChains] = {}, product;
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(2);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile(
          "vpmaddubsw %3, %2, %1\n\t"
          "vpaddw %1, %0, %0"
          : "+x"(sums[c]), "=&x"(product)
          : "x"(a), "x"(b));
}

void probe_int8(int64_t iterations) {
  __m256i sums[kProbeChains] = {}, product;
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(2), ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile(
          "vpmaddubsw %3, %2, %1\n\t"
          "vpmaddwd %4, %1, %1\n\t"
          "vpaddd %1, %0, %0"
          : "+x"(sums[c]), "=&x"(product)
          : "x"(a), "x"(b), "x"(ones));
}

}  // namespace lapidary::avx2
