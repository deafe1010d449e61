// The sources of the AVX-512 and AMX tables, compiled again with emulated/immintrin.h in place of
// the compiler's, and the plain C++ model of tiles in place of AMX's.
#include "kernels/avx512_emulated.h"

#include "kernels/simd/bf16_tiles.h"
#include "kernels/simd/table.h"
#include "kernels/simd/tiles.h"
#include "kernels/x86/avx512_bf16.h"
#include "kernels/x86/avx512_float.h"

namespace lapidary {

std::array<const Kernels*, 2> emulated_kernels() {
  using avx512::F, avx512::I, avx512::Q;
  static constexpr Kernels vectors = simd::make_table<F, I, Q>("avx512 (emulated)");
  static constexpr Kernels tiles = [] {
    Kernels table = vectors;
    table.isa = "amx (emulated)";
    table.quantized_matmul = simd::quantized_matmul<F, I, simd::TileQ<Q, simd::TileModel>>;
    table.pack_bf16 = simd::pack_bf16<avx512::Bf16Packer>;
    table.gemm_bf16 = simd::gemm_bf16<simd::Bf16TileModel>;
    return table;
  }();
  return {&vectors, &tiles};
}

}  // namespace lapidary
