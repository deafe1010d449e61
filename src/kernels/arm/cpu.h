// What this CPU and operating system can run.
#pragma once

namespace lapidary::arm {

struct Cpu {
  bool dotprod;  // NEON with sdot; NEON itself is in every AArch64
};
const Cpu& cpu();

}  // namespace lapidary::arm
