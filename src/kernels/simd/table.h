// The table of an instruction set whose vector is F.
#pragma once

#include "kernels/simd/attention.h"
#include "kernels/simd/elementwise.h"
#include "kernels/simd/matmul.h"
#include "kernels/simd/quantized.h"

namespace lapidary::simd {

template <class F, class I, class Q>
constexpr Kernels make_table(std::string_view isa) {
  return {.isa = isa,
          .matmul = matmul<F>,
          .quantize = quantize<F, Q>,
          .quantized_matmul = quantized_matmul<F, I, Q>,
          .dequantize_row = dequantize_row<F>,
          .rms_norm = rms_norm<F>,
          .gelu_mul = gelu_mul<F>,
          .softcap = softcap<F>,
          .attend = attend<F>,
          .merge_attention = merge_attention<F>};
}

}  // namespace lapidary::simd
