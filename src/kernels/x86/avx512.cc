// The kernel table of AVX-512 with VNNI.
#include "kernels/simd/bf16_tiles.h"
#include "kernels/simd/table.h"
#include "kernels/x86/avx512_bf16.h"
#include "kernels/x86/avx512_float.h"
#include "kernels/x86/tables.h"

namespace lapidary::avx512 {

const Kernels& without_bf16() {
  static constexpr Kernels table = simd::make_table<F, I, Q>("avx512");
  return table;
}

void pack_bf16(const Bf16PackArgs& args) {
  simd::pack_bf16<Bf16Packer>(args);
}

}  // namespace lapidary::avx512
