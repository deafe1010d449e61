// The loops of the probes (probe.h), which do kProbeChains instructions in each iteration. Their
// table is made elsewhere, for the reason given in x86/probes.h.
#pragma once

#include <cstdint>

namespace lapidary::neon {
constexpr int kProbeChains = 24;  // of 32 registers: four units of a latency of up to six
void probe_f32(int64_t iterations);
void probe_int8(int64_t iterations);  // needs the dot products of Armv8.2
}  // namespace lapidary::neon
