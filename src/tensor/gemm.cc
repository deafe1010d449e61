#include "tensor/gemm.h"

#include <algorithm>
#include <cstring>

#include "lapidary/error.h"

namespace lapidary {

namespace {

constexpr int64_t kRows = 2048;      // of a that are packed at once
constexpr int64_t kCols = 4096;      // of b: 4 MiB
constexpr int64_t kTaskCols = 128;   // of a product that one thread does at once: its part of b
constexpr int64_t kSerialRows = 96;  // the same for a product by one thread
constexpr int64_t kSerialCols = 256;

int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// 4 values of each of kRows <= 4 rows become columns: out[k * width + i] = from[i * stride + k].
using Four = float __attribute__((vector_size(16)));
template <int kRows>
[[gnu::always_inline]] inline void transpose(const float* from, int64_t stride, int64_t width,
                                             float* out) {
  Four rows[4];
  for (int i = 0; i < 4; ++i)
    std::memcpy(&rows[i], from + (i < kRows ? i : 0) * stride, sizeof(Four));
  const Four a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Four b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Four c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Four d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  const Four columns[4] = {
      __builtin_shufflevector(a, c, 0, 1, 4, 5), __builtin_shufflevector(a, c, 2, 3, 6, 7),
      __builtin_shufflevector(b, d, 0, 1, 4, 5), __builtin_shufflevector(b, d, 2, 3, 6, 7)};
  for (int k = 0; k < 4; ++k) std::memcpy(out + k * width, &columns[k], kRows * sizeof(float));
}

// A panel of rows that lie in memory as they are, a line of each at a time: what is written stays
// close.
template <int kWidth>
void pack_lines(const float* from, int64_t stride, int64_t depth, float* out) {
  constexpr int kLine = 16, kFours = kWidth / 4 * 4;
  int64_t k = 0;
  for (; k + kLine <= depth; k += kLine)
    for (int64_t j = k; j < k + kLine; j += 4) {
      for (int i = 0; i < kFours; i += 4)
        transpose<4>(from + i * stride + j, stride, kWidth, out + j * kWidth + i);
      if constexpr (kFours < kWidth)
        transpose<kWidth % 4>(from + kFours * stride + j, stride, kWidth,
                              out + j * kWidth + kFours);
    }
  for (; k < depth; ++k)
    for (int i = 0; i < kWidth; ++i) out[k * kWidth + i] = from[i * stride + k];
}

// One panel: out[k, i] = of(i, k) for i < width; `count` of them exist, the rest are zeros. Widths
// that the compiler knows are copied by vectors.
template <int kWidth>
void pack_panel(const float* from, int64_t i_stride, int64_t k_stride, int64_t count, int64_t width,
                int64_t depth, float* out) {
  if constexpr (kWidth > 0) {
    if (count == width && k_stride == 1) return pack_lines<kWidth>(from, i_stride, depth, out);
    width = kWidth;
  }
  if (count == width && i_stride == 1) {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t i = 0; i < width; ++i) out[k * width + i] = from[k * k_stride + i];
  } else {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t i = 0; i < width; ++i)
        out[k * width + i] = i < count ? from[i * i_stride + k * k_stride] : 0;
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

// A kind of operands: how they are packed and multiplied.
struct FloatOperands {
  using Value = float;
  static constexpr int64_t kDepth = 256;     // of a packed block: a panel of b is 16 KB or 32
  static constexpr int64_t kTaskRows = 252;  // at most: a task's part of a and of b fit the
                                             // second-level cache
  const Kernels& kernels;

  int64_t height() const { return kernels.gemm_rows; }
  int64_t width() const { return kernels.gemm_cols; }
  static int64_t packed_depth(int64_t depth) { return depth; }
  void pack_rows(Strided a, int64_t first, int64_t last, float* out) const {
    pack(a, height(), first, last, out);
  }
  void pack_cols(Strided b, int64_t first, int64_t last, float* out) const {
    pack(b.transposed(), width(), first, last, out);
  }
  void multiply(const GemmArgs& args) const { kernels.gemm(args); }
};

struct Bf16Operands {
  using Value = BFloat16;
  static constexpr int64_t kDepth = 512;  // the same bytes
  static constexpr int64_t kTaskRows = 256;
  static_assert(kDepth % kBf16Step == 0);
  const Kernels& kernels;

  static int64_t height() { return kBf16Panel; }
  static int64_t width() { return kBf16Panel; }
  static int64_t packed_depth(int64_t depth) { return bf16_depth(depth); }
  void pack_rows(Strided a, int64_t first, int64_t last, BFloat16* out) const {
    pack(Bf16Operand::kRows, a, first, last, out);
  }
  void pack_cols(Strided b, int64_t first, int64_t last, BFloat16* out) const {
    pack(Bf16Operand::kCols, b.transposed(), first, last, out);
  }
  void multiply(const Bf16GemmArgs& args) const { kernels.gemm_bf16(args); }

 private:
  void pack(Bf16Operand operand, Strided m, int64_t first, int64_t last, BFloat16* out) const {
    kernels.pack_bf16({.operand = operand,
                       .data = m.data,
                       .count = m.rows,
                       .depth = m.cols,
                       .stride = m.row_stride,
                       .k_stride = m.col_stride,
                       .first = first,
                       .last = last,
                       .out = out});
  }
};

template <class Kind, class Run>
void multiply(const Kind& kind, const BlockSizes& sizes, Strided a, Strided b, Target c, Into into,
              typename Kind::Value* packed_a, typename Kind::Value* packed_b, Run&& run) {
  const int64_t height = kind.height(), width = kind.width();
  const int64_t task_cols = round_up(sizes.task_cols, width);
  for (int64_t i = 0; i < a.rows; i += sizes.rows)
    for (int64_t k = 0; k < a.cols; k += Kind::kDepth) {
      const int64_t rows = std::min(sizes.rows, a.rows - i);
      const int64_t depth = std::min(Kind::kDepth, a.cols - k);
      const int64_t packed_depth = Kind::packed_depth(depth);
      const Strided part = a.block(i, k, rows, depth);
      run(panels(rows, height), height * depth,
          [&](int64_t first, int64_t last) { kind.pack_rows(part, first, last, packed_a); });
      for (int64_t j = 0; j < b.cols; j += sizes.cols) {
        const int64_t cols = std::min(sizes.cols, b.cols - j);
        const Strided other = b.block(k, j, depth, cols);
        run(panels(cols, width), width * depth,
            [&](int64_t first, int64_t last) { kind.pack_cols(other, first, last, packed_b); });
        const int64_t across = panels(cols, task_cols), down = panels(rows, sizes.task_rows);
        const int64_t task_rows = round_up(panels(rows, down), height);
        run(across * down, task_rows * task_cols * depth, [&](int64_t first, int64_t last) {
          for (int64_t task = first; task < last; ++task) {
            const int64_t row = task % down * task_rows, col = task / down * task_cols;
            kind.multiply({.a = packed_a + row * packed_depth,
                           .b = packed_b + col * packed_depth,
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

// Values of a packed block of n rows or columns, in panels of `width`.
template <class Kind>
int64_t packed_size(int64_t n, int64_t width) {
  return round_up(n, width) * Kind::kDepth;
}

template <class Kind>
void multiply_by_all(Executor& ex, const Kind& kind, Strided a, Strided b, Target c, Into into) {
  const int64_t a_size = packed_size<Kind>(std::min(a.rows, kRows), kind.height());
  const int64_t b_size = packed_size<Kind>(std::min(b.cols, kCols), kind.width());
  const int64_t bytes = (a_size + b_size) * int64_t{sizeof(typename Kind::Value)};
  auto* packed = reinterpret_cast<typename Kind::Value*>(ex.packed(bytes));
  multiply(kind, {kRows, kCols, Kind::kTaskRows, kTaskCols}, a, b, c, into, packed, packed + a_size,
           [&](int64_t count, int64_t work, auto&& fn) {
             ex.for_each(count, work, [&](int64_t first, int64_t last, int) { fn(first, last); });
           });
}

}  // namespace

void gemm(Executor& ex, Strided a, Strided b, Target c, Into into) {
  LAPIDARY_CHECK(a.cols == b.rows, "[gemm] the depths of a and b");
  const Kernels& kernels = ex.kernels();
  if (ex.operands == Operands::kFloat)
    return multiply_by_all(ex, FloatOperands{kernels}, a, b, c, into);
  LAPIDARY_CHECK(kernels.gemm_bf16 != nullptr, "[gemm] kernels that multiply bf16");
  multiply_by_all(ex, Bf16Operands{kernels}, a, b, c, into);
}

int64_t gemm_scratch_floats(const Kernels& kernels) {
  return packed_size<FloatOperands>(kSerialRows, kernels.gemm_rows) +
         packed_size<FloatOperands>(kSerialCols, kernels.gemm_cols);
}

void gemm(const Kernels& kernels, Strided a, Strided b, Target c, Into into, float* scratch) {
  LAPIDARY_CHECK(a.cols == b.rows, "[gemm] the depths of a and b");
  multiply(FloatOperands{kernels}, {kSerialRows, kSerialCols, kSerialRows, kSerialCols}, a, b, c,
           into, scratch, scratch + packed_size<FloatOperands>(kSerialRows, kernels.gemm_rows),
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
  constexpr int64_t kUnit = FloatOperands::kDepth;
  const int64_t count = std::min(std::max(kFloats / w.cols / kUnit * kUnit, kUnit), w.rows);
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
