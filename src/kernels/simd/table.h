// The table of an instruction set whose vector is F.
#pragma once

#include "kernels/simd/attention.h"
#include "kernels/simd/elementwise.h"
#include "kernels/simd/gemm.h"
#include "kernels/simd/matmul.h"
#include "kernels/simd/quantized.h"

namespace lapidary::simd {

template <class F, class I, class Q>
constexpr Kernels make_table(std::string_view isa) {
  return {.isa = isa,
          .matmul = matmul<F>,
          .quantize = quantize<F, Q>,
          .quantized_matmul = quantized_matmul<F, I, Q>,
          .dequantize = dequantize<F>,
          .rms_norm = rms_norm<F>,
          .gelu_mul = gelu_mul<F>,
          .softcap = softcap<F>,
          .attend = attend<F>,
          .merge_attention = merge_attention<F>,
          .gemm_rows = F::kGemmRows,
          .gemm_cols = 16 * F::kGemmVectors,
          .gemm = gemm<F>,
          .pack_bf16 = nullptr,
          .gemm_bf16 = nullptr,
          .softmax = softmax<F>,
          .gelu_mul_backward = gelu_mul_backward<F>};
}

}  // namespace lapidary::simd
