// The sources of the AVX-512 and AMX tables, compiled again with emulated/immintrin.h in place of
// the compiler's, and plain C++ models in place of AMX's tiles and of vdpbf16ps.
#include "kernels/avx512_emulated.h"

#include <cmath>

#include "kernels/simd/bf16_tiles.h"
#include "kernels/simd/table.h"
#include "kernels/simd/tiles.h"
#include "kernels/x86/avx512_bf16.h"
#include "kernels/x86/avx512_float.h"

namespace lapidary {

namespace {

// A unit of simd/bf16_tiles.h: the order of x86/avx512_bf16.cc, a sum at a time.
struct Bf16DotModel {
  static void configure() {}
  static void release() {}
  static void block(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                    bool add) {
    for (int64_t i = 0; i < kBf16Panel; ++i)
      for (int64_t j = 0; j < kBf16Panel; ++j) {
        float& out = c[i * stride + j];
        float sum = add ? simd::flushed(out) : 0.0f;
        for (int64_t k = 0; k < depth; k += 2)
          for (const int64_t at : {k + 1, k}) {
            const float x = to_float(a[bf16_position(Bf16Operand::kRows, i, at)]);
            const float y = to_float(b[bf16_position(Bf16Operand::kCols, j, at)]);
            sum = simd::flushed(std::fma(simd::flushed(x), simd::flushed(y), sum));
          }
        out = sum;
      }
  }
  static void part(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                   bool add, int64_t, int64_t) {
    block(a, b, depth, c, stride, add);
  }
};

}  // namespace

std::array<const Kernels*, 2> emulated_kernels() {
  using avx512::F, avx512::I, avx512::Q;
  static constexpr Kernels vectors = [] {
    Kernels table = simd::make_table<F, I, Q>("avx512 (emulated)");
    table.pack_bf16 = simd::pack_bf16<avx512::Bf16Packer>;
    table.gemm_bf16 = simd::gemm_bf16<Bf16DotModel>;
    return table;
  }();
  static constexpr Kernels tiles = [] {
    Kernels table = vectors;
    table.isa = "amx (emulated)";
    table.quantized_matmul = simd::quantized_matmul<F, I, simd::TileQ<Q, simd::TileModel>>;
    table.gemm_bf16 = simd::gemm_bf16<simd::TileUnit<simd::Bf16TileModel>>;
    return table;
  }();
  return {&vectors, &tiles};
}

}  // namespace lapidary
