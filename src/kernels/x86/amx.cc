// What AMX does that AVX-512 does not: the panels of quantised products, and products of bf16,
// through tiles.
#include "kernels/x86/amx.h"

#include "kernels/simd/bf16_tiles.h"
#include "kernels/simd/tiles.h"
#include "kernels/x86/avx512_float.h"
#include "kernels/x86/tables.h"

namespace lapidary::amx {

void quantized_matmul(const QuantizedMatmulArgs& args) {
  simd::quantized_matmul<avx512::F, avx512::I, simd::TileQ<avx512::Q, Tiles>>(args);
}

void gemm_bf16(const Bf16GemmArgs& args) {
  simd::gemm_bf16<simd::TileUnit<Bf16Tiles>>(args);
}

}  // namespace lapidary::amx
