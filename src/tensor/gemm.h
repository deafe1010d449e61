// Products of f32 matrices, for training: c (+)= a b, and products with stored weights that are
// decoded a block of rows at a time. Each element of c is one chain of sums over k, so blocks and
// threads change no bit. Where the executor's operands are bf16, those of products that its threads
// share are rounded as they are packed; the result is f32.
#pragma once

#include <cstdint>

#include "tensor/matrix.h"
#include "tensor/ops.h"

namespace lapidary {

enum class Into { kOverwrite, kAdd };

// Where a product goes: rows `stride` floats apart.
struct Target {
  float* data;
  int64_t stride;
  Target(float* d, int64_t s) : data(d), stride(s) {}
  Target(Matrix m) : data(m.data), stride(m.cols) {}
};

// c[a.rows, b.cols] (+)= a b
void gemm(Executor& ex, Strided a, Strided b, Target c, Into into);

// The same by one thread, for small products inside a parallel loop.
int64_t gemm_scratch_floats(const Kernels& kernels);
void gemm(const Kernels& kernels, Strided a, Strided b, Target c, Into into, float* scratch);

// y[T, N] = x[T, K] wᵀ
void gemm_rows(Executor& ex, Matrix x, const WeightMatrix& w, Matrix y);
// dx[T, K] += dy[T, N] w
void gemm_cols(Executor& ex, Matrix dy, const WeightMatrix& w, Matrix dx);

}  // namespace lapidary
