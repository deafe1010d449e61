// The kernel tables of x86-64. Calling into one the CPU lacks is an illegal instruction: ask
// supported_kernels().
#pragma once

#include "kernels/kernels.h"

namespace lapidary::avx2 {
const Kernels& kernels();
}
namespace lapidary::avx512 {
const Kernels& kernels();  // with products of bf16 where they are faster than those of f32
const Kernels& without_bf16();
void pack_bf16(const Bf16PackArgs& args);  // AMX's too
void gemm_bf16(const Bf16GemmArgs& args);
}  // namespace lapidary::avx512
namespace lapidary::amx {
const Kernels& kernels();  // AVX-512's, but for
void quantized_matmul(const QuantizedMatmulArgs& args);
void gemm_bf16(const Bf16GemmArgs& args);
}  // namespace lapidary::amx
