// Activations: f32, row-major.
#pragma once

#include <cstdint>

namespace lapidary {

// [rows, cols] without gaps. A view; does not own the memory.
struct Matrix {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;

  float* row(int64_t i) const { return data + i * cols; }
  int64_t size() const { return rows * cols; }
  // The same memory as rows of another width: [T, H * d] as [T * H, d].
  Matrix reshaped(int64_t new_cols) const { return {data, size() / new_cols, new_cols}; }
  Matrix rows_from(int64_t first, int64_t count) const { return {row(first), count, cols}; }
};

// Element (i, j) at data[i * row_stride + j * col_stride]: an operand of a product as it lies, or
// turned over.
struct Strided {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;

  Strided(const float* d, int64_t r, int64_t c, int64_t rs, int64_t cs = 1)
      : data(d), rows(r), cols(c), row_stride(rs), col_stride(cs) {}
  Strided(Matrix m) : Strided(m.data, m.rows, m.cols, m.cols) {}
  Strided transposed() const { return {data, cols, rows, col_stride, row_stride}; }
  Strided block(int64_t row, int64_t col, int64_t r, int64_t c) const {
    return {data + row * row_stride + col * col_stride, r, c, row_stride, col_stride};
  }
};

}  // namespace lapidary
