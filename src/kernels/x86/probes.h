// The loops of the probes (probe.h), which do kProbeChains or kProbeProducts instructions, or short
// runs of instructions, in each iteration. Their table is made elsewhere: a file built for an
// instruction set must hold nothing that runs on a CPU without it.
#pragma once

#include <cstdint>

namespace lapidary::avx2 {
constexpr int kProbeChains = 12;  // with operands and a temporary, all 16 registers
void probe_f32(int64_t iterations);
void probe_int8_short(int64_t iterations);
void probe_int8(int64_t iterations);
}  // namespace lapidary::avx2

namespace lapidary::avx512 {
constexpr int kProbeChains = 16;  // of 32 registers
void probe_f32(int64_t iterations);
void probe_vnni(int64_t iterations);
void probe_bf16(int64_t iterations);
void probe_f16(int64_t iterations);
}  // namespace lapidary::avx512

namespace lapidary::amx {
constexpr int kProbeProducts = 4;  // of tiles
void probe_int8(int64_t iterations);
void probe_bf16(int64_t iterations);
}  // namespace lapidary::amx
