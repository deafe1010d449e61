// What the units of NEON do at most; assembly statements for the reason given in
// x86/probe_avx2.cc.
#include <arm_neon.h>

#include "kernels/arm/probes.h"

namespace lapidary::neon {

void probe_f32(int64_t iterations) {
  float32x4_t sums[kProbeChains] = {};
  const float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.25f);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 24
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(sums[c]) : "w"(a), "w"(b));
}

void probe_int8(int64_t iterations) {
  int32x4_t sums[kProbeChains] = {};
  const int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(2);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 24
    for (int c = 0; c < kProbeChains; ++c)
      asm volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums[c]) : "w"(a), "w"(b));
}

}  // namespace lapidary::neon
