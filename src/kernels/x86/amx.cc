// What AMX does that AVX-512 does not: the panels of quantised products, through tiles.
#include "kernels/x86/amx.h"

#include "kernels/simd/tiles.h"
#include "kernels/x86/avx512_float.h"
#include "kernels/x86/tables.h"

namespace lapidary::amx {

void quantized_matmul(const QuantizedMatmulArgs& args) {
  simd::quantized_matmul<avx512::F, avx512::I, simd::TileQ<avx512::Q, Tiles>>(args);
}

}  // namespace lapidary::amx
