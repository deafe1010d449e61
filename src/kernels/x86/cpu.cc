#include "kernels/x86/cpu.h"

#include <cpuid.h>
#include <cstdint>
#include <cstring>

namespace lapidary::x86 {

namespace {

// The register sets that the operating system saves; reading it needs OSXSAVE.
uint64_t enabled_state() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool bit(uint32_t word, int index) {
  return (word >> index & 1u) != 0;
}

// Bits as Intel's manual lists them under CPUID; not from __builtin_cpu_supports, whose names
// differ between compilers.
Cpu detect() {
  Cpu c{};
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return c;
  const bool fma = bit(ecx, 12), f16c = bit(ecx, 29), xsave = bit(ecx, 27);
  if (!xsave || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return c;
  // XMM and YMM; those, masks and both parts of ZMM; the configuration and the data of tiles.
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6, kTiles = 0x60000;
  const uint64_t state = enabled_state();
  c.avx2 = bit(ebx, 5) && fma && f16c && (state & kYmm) == kYmm;
  c.avx512 = c.avx2 && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31) &&
             (state & kZmm) == kZmm;
  c.avx512_vnni = c.avx512 && bit(ecx, 11);
  c.avx512_fp16 = c.avx512 && bit(edx, 23);
  const bool tiles = bit(edx, 24) && (state & kTiles) == kTiles;
  c.amx_int8 = tiles && bit(edx, 25);
  c.amx_bf16 = tiles && bit(edx, 22);
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) c.avx512_bf16 = c.avx512 && bit(eax, 5);
  uint32_t vendor[3] = {};
  if (__get_cpuid(0, &eax, &vendor[0], &vendor[2], &vendor[1]) != 0)
    c.fast_avx512_bf16 = c.avx512_bf16 && std::memcmp(vendor, "AuthenticAMD", sizeof vendor) == 0;
  return c;
}

}  // namespace

const Cpu& cpu() {
  static const Cpu detected = detect();
  return detected;
}

}  // namespace lapidary::x86
