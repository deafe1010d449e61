// Products of f32 matrices, for training: c (+)= a b, where b may be stored weights. Each element
// of c is one chain of sums over k, so blocks and threads change no bit. Where the executor's
// operands are bf16, those of products that its threads share are rounded as they are packed; the
// result is f32.
#pragma once

#include <cstdint>
#include <span>

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

// Values as they lie, or weights [N, K] as they are stored, which are decoded as they are packed: a
// core's cache holds what is decoded at once. A view; the weights outlive it.
class RightSide {
 public:
  RightSide(Strided values) : values_(values) {}
  RightSide(Matrix values) : values_(values) {}
  RightSide(const WeightMatrix& w);

  RightSide transposed() const {
    RightSide other = *this;
    other.values_ = values_.transposed();
    other.turned_ = !turned_;
    return other;
  }
  int64_t rows() const { return values_.rows; }
  int64_t cols() const { return values_.cols; }
  const WeightMatrix* stored() const { return stored_; }  // nullptr: values() are there
  bool turned() const { return turned_; }                 // they are the weights' transpose
  Strided values() const { return values_; }

 private:
  Strided values_;
  const WeightMatrix* stored_ = nullptr;
  bool turned_ = false;
};

// c[a.rows, b.cols] (+)= a b
struct RightProduct {
  RightSide b;
  Target c;
  Into into;
};
// Products of the same a, which is packed once for all.
void gemm(Executor& ex, Strided a, std::span<const RightProduct> products);
inline void gemm(Executor& ex, Strided a, RightSide b, Target c, Into into) {
  const RightProduct product{b, c, into};
  gemm(ex, a, {&product, 1});
}

// The same by one thread, for small products inside a parallel loop.
int64_t gemm_scratch_floats(const Kernels& kernels);
void gemm(const Kernels& kernels, Strided a, Strided b, Target c, Into into, float* scratch);

// y[T, N] = x[T, K] wᵀ
void gemm_rows(Executor& ex, Matrix x, const WeightMatrix& w, Matrix y);
// dx[T, K] += dy[T, N] w
void gemm_cols(Executor& ex, Matrix dy, const WeightMatrix& w, Matrix dx);

}  // namespace lapidary
