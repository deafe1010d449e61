#include "kernels/arm/cpu.h"

#include <sys/auxv.h>

namespace lapidary::arm {

namespace {

// Bits as the kernel's elf_hwcaps.rst lists them; the C library may be older than the CPU.
Cpu detect() {
  constexpr unsigned long kDotprod = 1ul << 20;  // HWCAP_ASIMDDP
  return {.dotprod = (getauxval(AT_HWCAP) & kDotprod) != 0};
}

}  // namespace

const Cpu& cpu() {
  static const Cpu detected = detect();
  return detected;
}

}  // namespace lapidary::arm
