// The kernel table of AVX-512 with VNNI.
#include "kernels/simd/table.h"
#include "kernels/x86/avx512_float.h"
#include "kernels/x86/tables.h"

namespace lapidary::avx512 {

const Kernels& without_bf16() {
  static constexpr Kernels table = simd::make_table<F, I, Q>("avx512");
  return table;
}

}  // namespace lapidary::avx512
