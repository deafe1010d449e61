// The kernel table of NEON with dot products. AArch64 without them goes on with `ref`.
#include "kernels/arm/neon_float.h"
#include "kernels/arm/tables.h"
#include "kernels/simd/table.h"

namespace lapidary::neon {

const Kernels& kernels() {
  static constexpr Kernels table = simd::make_table<F, I, Q>("neon");
  return table;
}

}  // namespace lapidary::neon
