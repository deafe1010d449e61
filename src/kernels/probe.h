// Loops that do nothing but keep one unit of the machine busy, to measure what it can do at most.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lapidary {

// Arithmetic on registers alone: independent chains, enough of them to hide the latency.
struct ComputeProbe {
  std::string_view name;         // "avx2 f32"
  std::string_view isa;          // "avx2"
  std::string_view instruction;  // "vfmadd231ps ymm"
  std::string_view unit;         // of what it does: "FLOP", or "OP" for integers
  int64_t ops;                   // of one iteration; a multiplication and an addition are two
  void (*run)(int64_t iterations);
  bool supported;  // by this CPU and system; run() is an illegal instruction otherwise
};

// Every probe compiled in, supported or not, in the order of the instruction sets.
std::span<const ComputeProbe> compute_probes();
// nullptr when there is none of that name.
const ComputeProbe* find_compute_probe(std::string_view name);

// Reads `count` bytes of each of `streams` rows and returns a sum of them. Rows start `stride`
// bytes apart and are walked side by side, a cache line at a time, which is how a kernel reads rows
// of weights that lie far apart. 1, 2, 4 or 8 streams; `ahead` bytes of each row are prefetched by
// software, 0: none. `data`, `stride` and `count` are multiples of a cache line.
uint64_t read_streams(const std::byte* data, int64_t stride, int64_t count, int streams,
                      int64_t ahead);

}  // namespace lapidary
