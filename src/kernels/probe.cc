#include "kernels/probe.h"

#include <algorithm>
#include <vector>

#include "lapidary/error.h"

#if defined(__x86_64__)
#include "kernels/x86/amx_permission.h"
#include "kernels/x86/cpu.h"
#include "kernels/x86/probes.h"
#elif defined(__aarch64__)
#include "kernels/arm/cpu.h"
#include "kernels/arm/probes.h"
#endif

namespace lapidary {

namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line

// 16 bytes: what every x86-64 and every arm64 loads at once. Wider loads read memory no faster.
using Words [[gnu::vector_size(16)]] = uint64_t;

template <int kStreams>
uint64_t read_rows(const std::byte* data, int64_t stride, int64_t count, int64_t ahead) {
  Words sums[4] = {};
  for (int64_t at = 0; at < count; at += kLine)
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const std::byte* line = data + s * stride + at;
      if (ahead > 0) __builtin_prefetch(line + ahead);  // may point past the end: a hint only
      for (int i = 0; i < 4; ++i) sums[i] ^= reinterpret_cast<const Words*>(line)[i];
    }
  const Words all = (sums[0] ^ sums[1]) ^ (sums[2] ^ sums[3]);
  return all[0] ^ all[1];
}

}  // namespace

std::span<const ComputeProbe> compute_probes() {
#if defined(__x86_64__)
  static const std::vector<ComputeProbe> probes = [] {
    const x86::Cpu& cpu = x86::cpu();
    const bool tiles = x86::amx_permitted();
    // A product and its sum are two operations.
    constexpr int64_t kYmm = avx2::kProbeChains * 2, kZmm = avx512::kProbeChains * 2;
    constexpr int64_t kTile = amx::kProbeProducts * 16 * 16 * 2;
    return std::vector<ComputeProbe>{
        {"avx2 f32", "avx2", "vfmadd231ps ymm", "FLOP", 8 * kYmm, avx2::probe_f32, cpu.avx2},
        {"avx2 int8, 16-bit sums", "avx2", "vpmaddubsw, vpaddw ymm", "OP", 32 * kYmm,
         avx2::probe_int8_short, cpu.avx2},
        {"avx2 int8", "avx2", "vpmaddubsw, vpmaddwd, vpaddd ymm", "OP", 32 * kYmm, avx2::probe_int8,
         cpu.avx2},
        {"avx512 f32", "avx512", "vfmadd231ps zmm", "FLOP", 16 * kZmm, avx512::probe_f32,
         cpu.avx512},
        {"avx512 vnni int8", "avx512", "vpdpbusd zmm", "OP", 64 * kZmm, avx512::probe_vnni,
         cpu.avx512_vnni},
        {"avx512 bf16", "avx512", "vdpbf16ps zmm", "FLOP", 32 * kZmm, avx512::probe_bf16,
         cpu.avx512_bf16},
        {"avx512 f16", "avx512", "vfmadd231ph zmm", "FLOP", 32 * kZmm, avx512::probe_f16,
         cpu.avx512_fp16},
        {"amx int8", "amx", "tdpbusd", "OP", 64 * kTile, amx::probe_int8, tiles && cpu.amx_int8},
        {"amx bf16", "amx", "tdpbf16ps", "FLOP", 32 * kTile, amx::probe_bf16,
         tiles && cpu.amx_bf16},
    };
  }();
  return probes;
#elif defined(__aarch64__)
  constexpr int64_t kOps = neon::kProbeChains * 2;
  static const ComputeProbe probes[] = {
      {"neon f32", "neon", "fmla 4s", "FLOP", 4 * kOps, neon::probe_f32, true},
      {"neon int8", "neon", "sdot 4s", "OP", 16 * kOps, neon::probe_int8, arm::cpu().dotprod},
  };
  return probes;
#else
  return {};
#endif
}

const ComputeProbe* find_compute_probe(std::string_view name) {
  for (const ComputeProbe& probe : compute_probes())
    if (probe.name == name) return &probe;
  return nullptr;
}

uint64_t read_streams(const std::byte* data, int64_t stride, int64_t count, int streams,
                      int64_t ahead) {
  LAPIDARY_CHECK(
      stride % kLine == 0 && count % kLine == 0 && reinterpret_cast<uintptr_t>(data) % kLine == 0,
      "whole cache lines");
  switch (streams) {
    case 1:
      return read_rows<1>(data, stride, count, ahead);
    case 2:
      return read_rows<2>(data, stride, count, ahead);
    case 4:
      return read_rows<4>(data, stride, count, ahead);
    case 8:
      return read_rows<8>(data, stride, count, ahead);
  }
  LAPIDARY_CHECK(false, "1, 2, 4 or 8 streams");
  return 0;
}

}  // namespace lapidary
