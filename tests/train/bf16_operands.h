// Training with operands rounded to bf16, on any machine.
#pragma once

#include <cmath>

#include "lapidary/config.h"

#include "kernels/cases.h"

namespace lapidary {

// The kernels of this machine, with products of bf16 by AMX, the model of its tiles or, where that
// is not to be had, the definition.
inline const Kernels& bf16_kernels() {
  static const Kernels kernels = [] {
    Kernels table = best_kernels();
    if (table.gemm_bf16 == nullptr) {
      const Kernels* other = tables_under_test(&Kernels::gemm_bf16).back();
      table.pack_bf16 = other->pack_bf16;
      table.gemm_bf16 = other->gemm_bf16;
    }
    return table;
  }();
  return kernels;
}

// How far gradients may be off, over their norm. Rounding moves each operand by 2^-8 of itself at
// most, up or down, so a product is off by sqrt(2) 2^-8 of its norm. A gradient has behind it all
// products of the layers forward, four one after another in each, the logits', and as many back,
// whose errors add up as a random walk.
inline double bf16_bound(const Config& config) {
  const double products = 2 * (4.0 * config.num_hidden_layers + 1);
  return std::sqrt(2 * products) * 0x1p-8;
}

}  // namespace lapidary
