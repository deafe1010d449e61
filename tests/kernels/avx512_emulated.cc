// The sources of the AVX-512 and AMX tables, compiled again with emulated/immintrin.h in place of
// the compiler's, and the plain C++ model of tiles in place of AMX's.
#include "kernels/avx512_emulated.h"

#include "kernels/simd/table.h"
#include "kernels/simd/tiles.h"
#include "kernels/x86/avx512_float.h"

namespace lapidary {

std::array<const Kernels*, 2> emulated_kernels() {
  using avx512::F, avx512::I, avx512::Q;
  static constexpr Kernels vectors = simd::make_table<F, I, Q>("avx512 (emulated)");
  static constexpr Kernels tiles = [] {
    Kernels table = vectors;
    table.isa = "amx (emulated)";
    table.quantized_matmul = simd::quantized_matmul<F, I, simd::TileQ<Q, simd::TileModel>>;
    return table;
  }();
  return {&vectors, &tiles};
}

}  // namespace lapidary
