#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "lapidary/log.h"

#include "base/fail.h"
#include "kernels/kernels.h"
#include "kernels/ref/ref.h"
#include "kernels/simd/attention.h"
#include "kernels/simd/matmul.h"
#include "kernels/simd/quantized.h"
#if defined(__x86_64__)
#include "kernels/x86/amx_permission.h"
#include "kernels/x86/cpu.h"
#include "kernels/x86/tables.h"
#elif defined(__aarch64__)
#include "kernels/arm/cpu.h"
#include "kernels/arm/tables.h"
#endif

namespace lapidary {

namespace {

struct Row {
  const Kernels* kernels;
  bool supported;
};

// Slowest first.
const std::vector<Row>& all_rows() {
  static const std::vector<Row> rows = [] {
    std::vector<Row> list{{&ref::kernels(), true}};
#if defined(__x86_64__)
    const x86::Cpu& cpu = x86::cpu();
    const bool avx512 = cpu.avx512_vnni;
    list.push_back({&avx2::kernels(), cpu.avx2});
    list.push_back({&avx512::kernels(), avx512});
    const bool has_tiles = avx512 && cpu.amx_int8;
    const bool amx = has_tiles && x86::amx_permitted();
    list.push_back({&amx::kernels(), amx});
    if (has_tiles && !amx)
      log(LogLevel::kWarning, "the system refuses the tiles of AMX; going on with AVX-512");
#elif defined(__aarch64__)
    list.push_back({&neon::kernels(), arm::cpu().dotprod});
#endif
    return list;
  }();
  return rows;
}

}  // namespace

std::string format_name(const WeightMatrix& w) {
  if (w.blocks()) return std::string(block_format(w.format).name);
  if (w.affine()) return fmt::format("affine {}-bit, groups of {}", w.bits, w.group);
  return std::string(name_of(w.dtype));
}

int64_t matmul_scratch_floats(int64_t cols) {
  return simd::kPanelRows * (cols + simd::kGroupTokens * 16);
}

int64_t quantized_scratch_floats(int64_t cols) {
  const int64_t tile = std::max(simd::affine_tile_floats(cols), simd::kBlockTileFloats);
  const int64_t panels = simd::kPanel / 16 * tile + simd::kPackedBytes / 4;
  const int64_t copies = 4;  // of the activations, see RowCodes
  const int64_t rows = tile + copies * simd::kRowTokens * (cols + kQuantBlock) / 4;
  return std::max(panels, rows);
}

int64_t attend_scratch_floats(int head_dim) {
  return int64_t{simd::kRowTile} * kKvBlock + 2 * int64_t{kAttendRows} * head_dim;
}

std::span<const Kernels* const> supported_kernels() {
  static const std::vector<const Kernels*> supported = [] {
    std::vector<const Kernels*> list;
    for (const Row& row : all_rows())
      if (row.supported) list.push_back(row.kernels);
    return list;
  }();
  return supported;
}

const Kernels& best_kernels() {
  const char* wanted = std::getenv("LAPIDARY_ISA");
  if (wanted == nullptr || *wanted == '\0') return *supported_kernels().back();
  std::string known;
  for (const Row& row : all_rows()) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.kernels->isa);
    if (row.kernels->isa != wanted) continue;
    if (!row.supported) fail_usage("LAPIDARY_ISA={}: this CPU does not have it", wanted);
    return *row.kernels;
  }
  fail_usage("LAPIDARY_ISA={}: unknown instruction set; there are {}", wanted, known);
}

}  // namespace lapidary
