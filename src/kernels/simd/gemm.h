// Products of packed f32 operands over F, a vector of 16 floats (README.md): what training spends
// its time in.
//
// A tile of kGemmRows x kGemmVectors sums stays in registers while k runs. A panel of b stays in
// the first-level cache while the panels of a pass.
#pragma once

#include "kernels/kernels.h"
#include "kernels/simd/elementwise.h"

namespace lapidary::simd {

template <class F>
[[gnu::always_inline]] inline void gemm_tile(const float* a, const float* b, int64_t depth,
                                             float* c, int64_t stride, bool add) {
  constexpr int kRows = F::kGemmRows, kVectors = F::kGemmVectors;
  F sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = add ? F::load(c + r * stride + 16 * v) : F::zero();
  for (int64_t k = 0; k < depth; ++k, a += kRows, b += 16 * kVectors) {
    F bs[kVectors];
    for (int v = 0; v < kVectors; ++v) bs[v] = F::load(b + 16 * v);
    for (int r = 0; r < kRows; ++r) {
      const F value = F::broadcast(a[r]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(value, bs[v], sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(c + r * stride + 16 * v, sums[r][v]);
}

// A tile at the edge, by way of a whole one.
template <class F>
void gemm_edge(const float* a, const float* b, int64_t depth, float* c, int64_t stride, bool add,
               int64_t rows, int64_t cols) {
  constexpr int64_t kCols = 16 * F::kGemmVectors;
  float tile[F::kGemmRows * kCols] = {};
  for (int64_t r = 0; add && r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) tile[r * kCols + j] = c[r * stride + j];
  gemm_tile<F>(a, b, depth, tile, kCols, add);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) c[r * stride + j] = tile[r * kCols + j];
}

template <class F>
void gemm(const GemmArgs& g) {
  constexpr int64_t kRows = F::kGemmRows, kCols = 16 * F::kGemmVectors;
  for (int64_t j = 0; j < g.cols; j += kCols)
    for (int64_t i = 0; i < g.rows; i += kRows) {
      const float* a = g.a + i * g.depth;
      const float* b = g.b + j * g.depth;
      float* c = g.c + i * g.stride + j;
      if (i + kRows <= g.rows && j + kCols <= g.cols) {
        gemm_tile<F>(a, b, g.depth, c, g.stride, g.add);
      } else {
        const int64_t rows = g.rows - i < kRows ? g.rows - i : kRows;
        const int64_t cols = g.cols - j < kCols ? g.cols - j : kCols;
        gemm_edge<F>(a, b, g.depth, c, g.stride, g.add, rows, cols);
      }
    }
}

}  // namespace lapidary::simd
