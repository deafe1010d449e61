// What this CPU and its operating system let a program use.
#pragma once

namespace lapidary::x86 {

struct CpuFeatures {
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, DQ, VL, VNNI
};
CpuFeatures cpu_features();

}  // namespace lapidary::x86
