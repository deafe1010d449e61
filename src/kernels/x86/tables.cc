// Compiled for any x86-64, as making a table must not need what the table does.
#include "kernels/x86/tables.h"

namespace lapidary::amx {

const Kernels& kernels() {
  static const Kernels table = [] {
    Kernels t = avx512::kernels();
    t.isa = "amx";
    t.quantized_matmul = quantized_matmul;
    return t;
  }();
  return table;
}

}  // namespace lapidary::amx
