#include "kernels/x86/cpu.h"

#include <cpuid.h>
#include <cstdint>

namespace lapidary::x86 {

namespace {

// The register sets that the operating system saves; reading it needs OSXSAVE.
uint64_t enabled_state() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

}  // namespace

// Bits as Intel's manual lists them under CPUID; not from __builtin_cpu_supports, whose names
// differ between compilers.
CpuFeatures cpu_features() {
  CpuFeatures have;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return have;
  const auto bit = [](uint32_t word, int i) { return (word >> i & 1u) != 0; };
  const bool fma = bit(ecx, 12), f16c = bit(ecx, 29), xsave = bit(ecx, 27);
  if (!xsave || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return have;
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6;  // XMM and YMM; those, masks and both parts of ZMM
  const uint64_t state = enabled_state();
  have.avx2 = bit(ebx, 5) && fma && f16c && (state & kYmm) == kYmm;
  have.avx512 = have.avx2 && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31) &&
                bit(ecx, 11) && (state & kZmm) == kZmm;
  return have;
}

}  // namespace lapidary::x86
