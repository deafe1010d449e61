// Compiled for any x86-64, as making a table must not need what the table does.
#include "kernels/x86/tables.h"

#include "kernels/x86/cpu.h"

namespace lapidary::avx512 {

const Kernels& kernels() {
  static const Kernels table = [] {
    Kernels t = without_bf16();
    if (x86::cpu().fast_avx512_bf16) {
      t.pack_bf16 = pack_bf16;
      t.gemm_bf16 = gemm_bf16;
    }
    return t;
  }();
  return table;
}

}  // namespace lapidary::avx512

namespace lapidary::amx {

const Kernels& kernels() {
  static const Kernels table = [] {
    Kernels t = avx512::kernels();
    t.isa = "amx";
    t.quantized_matmul = quantized_matmul;
    if (x86::cpu().amx_bf16) {
      t.pack_bf16 = avx512::pack_bf16;
      t.gemm_bf16 = gemm_bf16;
    }
    return t;
  }();
  return table;
}

}  // namespace lapidary::amx
