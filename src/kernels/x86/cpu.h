// What this CPU and operating system can run.
#pragma once

namespace lapidary::x86 {

struct Cpu {
  bool avx2;         // with FMA and F16C
  bool avx512;       // F, BW, DQ and VL, and what avx2 means
  bool avx512_vnni;  // each of these three with avx512
  bool avx512_bf16;
  bool fast_avx512_bf16;  // AMD's, twice as fast as f32; Sapphire Rapids' is half as fast
  bool avx512_fp16;
  bool amx_int8;  // whether the system grants the tiles is amx_permission.h's to say
  bool amx_bf16;
};
const Cpu& cpu();

}  // namespace lapidary::x86
