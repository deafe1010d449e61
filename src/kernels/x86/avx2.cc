// The kernel table of AVX2.
#include "kernels/simd/table.h"
#include "kernels/x86/avx2_blocks.h"
#include "kernels/x86/avx2_float.h"
#include "kernels/x86/tables.h"

namespace lapidary::avx2 {

const Kernels& kernels() {
  static constexpr Kernels table = simd::make_table<F, I, Q>("avx2");
  return table;
}

}  // namespace lapidary::avx2
