// AVX2's kernels with the panels of quantised products through the plain C++ model of tiles: what
// AMX does, on any machine. Compiled with AVX2's flags.
#include "kernels/tile_model.h"

#include "kernels/simd/table.h"
#include "kernels/simd/tiles.h"
#include "kernels/x86/avx2_float.h"
#include "kernels/x86/tables.h"

namespace lapidary {

const Kernels& tile_model_kernels() {
  using Q = simd::TileQ<avx2::Q, simd::TileModel>;
  static const Kernels table = [] {
    Kernels t = avx2::kernels();
    t.isa = "tile model";
    t.quantized_matmul = simd::quantized_matmul<avx2::F, avx2::I, Q>;
    return t;
  }();
  return table;
}

}  // namespace lapidary
