#include "tensor/gemm.h"

#include <algorithm>

#include "lapidary/error.h"

namespace lapidary {

namespace {

constexpr int64_t kDepth = 256;      // of a packed block: a panel of b is 16 KB or 32
constexpr int64_t kRows = 2048;      // of a that are packed at once
constexpr int64_t kCols = 4096;      // of b: 4 MiB
constexpr int64_t kTaskRows = 252;   // of a product that one thread does at once, at most: its part
constexpr int64_t kTaskCols = 128;   // of a and of b fit the second-level cache
constexpr int64_t kSerialRows = 96;  // the same for a product by one thread
constexpr int64_t kSerialCols = 256;

int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// One panel: out[k, i] = of(i, k) for i < width; `count` of them exist, the rest are zeros. Widths
// that the compiler knows are copied by vectors.
template <int kWidth>
void pack_panel(const float* from, int64_t i_stride, int64_t k_stride, int64_t count, int64_t width,
                int64_t depth, float* out) {
  if constexpr (kWidth > 0) width = kWidth;
  if (count < width) {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t i = 0; i < width; ++i)
        out[k * width + i] = i < count ? from[i * i_stride + k * k_stride] : 0;
  } else if (i_stride == 1) {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t i = 0; i < width; ++i) out[k * width + i] = from[k * k_stride + i];
  } else {
    constexpr int64_t kLine = 16;  // of each row at a time: what is written stays close
    for (int64_t k = 0; k < depth; k += kLine)
      for (int64_t i = 0; i < width; ++i) {
        const float* line = from + i * i_stride + k * k_stride;
        for (int64_t j = 0; j < std::min(kLine, depth - k); ++j)
          out[(k + j) * width + i] = line[j * k_stride];
      }
  }
}

// Panels [first, last) of the rows of m.
void pack(Strided m, int64_t width, int64_t first, int64_t last, float* out) {
  const auto panel = width == 16   ? pack_panel<16>
                     : width == 32 ? pack_panel<32>
                     : width == 6  ? pack_panel<6>
                     : width == 12 ? pack_panel<12>
                                   : pack_panel<0>;
  for (int64_t p = first; p < last; ++p)
    panel(m.data + p * width * m.row_stride, m.row_stride, m.col_stride,
          std::min(width, m.rows - p * width), width, m.cols, out + p * width * m.cols);
}

int64_t panels(int64_t n, int64_t width) {
  return (n + width - 1) / width;
}

// What `run(count, work, fn)` shares out are the panels to pack, and then the tasks of the product.
struct BlockSizes {
  int64_t rows, cols;            // packed at once
  int64_t task_rows, task_cols;  // of one task
};

template <class Run>
void multiply(const Kernels& kernels, const BlockSizes& sizes, Strided a, Strided b, Target c,
              Into into, float* packed_a, float* packed_b, Run&& run) {
  const int64_t height = kernels.gemm_rows, width = kernels.gemm_cols;
  const int64_t task_cols = round_up(sizes.task_cols, width);
  for (int64_t i = 0; i < a.rows; i += sizes.rows)
    for (int64_t k = 0; k < a.cols; k += kDepth) {
      const int64_t rows = std::min(sizes.rows, a.rows - i), depth = std::min(kDepth, a.cols - k);
      const Strided part = a.block(i, k, rows, depth);
      run(panels(rows, height), height * depth,
          [&](int64_t first, int64_t last) { pack(part, height, first, last, packed_a); });
      for (int64_t j = 0; j < b.cols; j += sizes.cols) {
        const int64_t cols = std::min(sizes.cols, b.cols - j);
        const Strided other = b.block(k, j, depth, cols).transposed();
        run(panels(cols, width), width * depth,
            [&](int64_t first, int64_t last) { pack(other, width, first, last, packed_b); });
        const int64_t across = panels(cols, task_cols), down = panels(rows, sizes.task_rows);
        const int64_t task_rows = round_up(panels(rows, down), height);
        run(across * down, task_rows * task_cols * depth, [&](int64_t first, int64_t last) {
          for (int64_t task = first; task < last; ++task) {
            const int64_t row = task % down * task_rows, col = task / down * task_cols;
            kernels.gemm({.a = packed_a + row * depth,
                          .b = packed_b + col * depth,
                          .rows = std::min(task_rows, rows - row),
                          .cols = std::min(task_cols, cols - col),
                          .depth = depth,
                          .c = c.data + (i + row) * c.stride + j + col,
                          .stride = c.stride,
                          .add = k > 0 || into == Into::kAdd});
          }
        });
      }
    }
}

int64_t packed_floats(int64_t n, int64_t width) {
  return round_up(n, width) * kDepth;
}

}  // namespace

void gemm(Executor& ex, Strided a, Strided b, Target c, Into into) {
  LAPIDARY_CHECK(a.cols == b.rows, "[gemm] the depths of a and b");
  const Kernels& kernels = ex.kernels();
  const int64_t a_floats = packed_floats(std::min(a.rows, kRows), kernels.gemm_rows);
  float* packed = ex.packed(a_floats + packed_floats(std::min(b.cols, kCols), kernels.gemm_cols));
  multiply(kernels, {kRows, kCols, kTaskRows, kTaskCols}, a, b, c, into, packed, packed + a_floats,
           [&](int64_t count, int64_t work, auto&& fn) {
             ex.for_each(count, work, [&](int64_t first, int64_t last, int) { fn(first, last); });
           });
}

int64_t gemm_scratch_floats(const Kernels& kernels) {
  return packed_floats(kSerialRows, kernels.gemm_rows) +
         packed_floats(kSerialCols, kernels.gemm_cols);
}

void gemm(const Kernels& kernels, Strided a, Strided b, Target c, Into into, float* scratch) {
  LAPIDARY_CHECK(a.cols == b.rows, "[gemm] the depths of a and b");
  multiply(kernels, {kSerialRows, kSerialCols, kSerialRows, kSerialCols}, a, b, c, into, scratch,
           scratch + packed_floats(kSerialRows, kernels.gemm_rows),
           [](int64_t count, int64_t, auto&& fn) { fn(int64_t{0}, count); });
}

namespace {

// fn(first row, the rows as f32) for blocks of the rows of w: in place when they are f32 already.
template <class Fn>
void for_row_blocks(Executor& ex, const WeightMatrix& w, Fn&& fn) {
  const bool aligned = reinterpret_cast<uintptr_t>(w.data) % alignof(float) == 0;
  if (!w.quantized() && w.dtype == DType::kF32 && aligned) {
    fn(int64_t{0}, Strided(reinterpret_cast<const float*>(w.data), w.rows, w.cols, w.cols));
    return;
  }
  constexpr int64_t kFloats = int64_t{1} << 20;  // 4 MiB: stays in the last-level cache
  const int64_t count = std::min(std::max(kFloats / w.cols / kDepth * kDepth, kDepth), w.rows);
  float* rows = ex.decoded(count * w.cols);
  for (int64_t n = 0; n < w.rows; n += count) {
    const int64_t height = std::min(count, w.rows - n);
    ex.for_each(height, w.cols, [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last; ++row)
        ex.kernels().dequantize_row(w, n + row, rows + row * w.cols);
    });
    fn(n, Strided(rows, height, w.cols, w.cols));
  }
}

}  // namespace

void gemm_rows(Executor& ex, Matrix x, const WeightMatrix& w, Matrix y) {
  for_row_blocks(ex, w, [&](int64_t first, Strided rows) {
    gemm(ex, x, rows.transposed(), {y.data + first, y.cols}, Into::kOverwrite);
  });
}

void gemm_cols(Executor& ex, Matrix dy, const WeightMatrix& w, Matrix dx) {
  for_row_blocks(ex, w, [&](int64_t first, Strided rows) {
    gemm(ex, Strided(dy.data + first, dy.rows, rows.rows, dy.cols), rows, dx, Into::kAdd);
  });
}

}  // namespace lapidary
