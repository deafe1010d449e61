#include "tensor/gemm.h"

#include <algorithm>
#include <cstring>

#include "lapidary/error.h"

namespace lapidary {

namespace {

constexpr int64_t kRows = 2048;      // of a that are packed at once
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

// Panels [first, last) of the rows of m, `apart` floats from each other.
void pack(Strided m, int64_t width, int64_t apart, int64_t first, int64_t last, float* out) {
  const auto panel = width == 16   ? pack_panel<16>
                     : width == 32 ? pack_panel<32>
                     : width == 6  ? pack_panel<6>
                     : width == 12 ? pack_panel<12>
                                   : pack_panel<0>;
  for (int64_t p = first; p < last; ++p)
    panel(m.data + p * width * m.row_stride, m.row_stride, m.col_stride,
          std::min(width, m.rows - p * width), width, m.cols, out + p * apart);
}

int64_t panels(int64_t n, int64_t width) {
  return (n + width - 1) / width;
}

// What is shared out are the panels to pack, and then the tasks of the product.
struct BlockSizes {
  int64_t rows, cols;            // packed at once
  int64_t task_rows, task_cols;  // of one task
};

// A kind of operands: how they are packed and multiplied.
struct FloatOperands {
  using Value = float;
  static constexpr int64_t kDepth = 256;     // of a packed block: a panel of b is 16 KB or 32
  static constexpr int64_t kCols = 4096;     // of b that are packed at once: 4 MiB
  static constexpr int64_t kTaskRows = 252;  // at most: a task's part of a and of b fit the
                                             // second-level cache
  const Kernels& kernels;

  int64_t height() const { return kernels.gemm_rows; }
  int64_t width() const { return kernels.gemm_cols; }
  static int64_t packed_depth(int64_t depth) { return depth; }
  void pack_rows(Strided a, int64_t apart, int64_t first, int64_t last, float* out) const {
    pack(a, height(), apart, first, last, out);
  }
  void pack_cols(Strided b, int64_t apart, int64_t first, int64_t last, float* out) const {
    pack(b.transposed(), width(), apart, first, last, out);
  }
  void multiply(const GemmArgs& args) const { kernels.gemm(args); }
};

struct Bf16Operands {
  using Value = BFloat16;
  // Deep: sums are read and written less often, and of most models' weights whole rows are decoded.
  static constexpr int64_t kDepth = 1280;
  static constexpr int64_t kCols = 1536;  // the same bytes
  static constexpr int64_t kTaskRows = 256;
  static_assert(kDepth % kBf16Step == 0);
  const Kernels& kernels;

  static int64_t height() { return kBf16Panel; }
  static int64_t width() { return kBf16Panel; }
  static int64_t packed_depth(int64_t depth) { return bf16_depth(depth); }
  void pack_rows(Strided a, int64_t apart, int64_t first, int64_t last, BFloat16* out) const {
    pack(Bf16Operand::kRows, a, apart, first, last, out);
  }
  void pack_cols(Strided b, int64_t apart, int64_t first, int64_t last, BFloat16* out) const {
    pack(Bf16Operand::kCols, b.transposed(), apart, first, last, out);
  }
  void multiply(const Bf16GemmArgs& args) const { kernels.gemm_bf16(args); }

 private:
  void pack(Bf16Operand operand, Strided m, int64_t apart, int64_t first, int64_t last,
            BFloat16* out) const {
    kernels.pack_bf16({.operand = operand,
                       .data = m.data,
                       .count = m.rows,
                       .depth = m.cols,
                       .stride = m.row_stride,
                       .k_stride = m.col_stride,
                       .first = first,
                       .last = last,
                       .out = out,
                       .panel = apart});
  }
};

// A part of a matrix.
struct Block {
  int64_t row, col, rows, cols;
};

// Of weights that are decoded to be packed: values of some rows, which stay in a core's cache.
constexpr int64_t kDecodedRows = kBf16Step;
constexpr int64_t kDecodedCols = 512;
constexpr int64_t kLine = 16;  // between rows that are a power of two long
static_assert(FloatOperands::kDepth % kDequantizeUnit == 0 &&
              FloatOperands::kCols % kDequantizeUnit == 0 &&
              Bf16Operands::kDepth % kDequantizeUnit == 0 &&
              Bf16Operands::kCols % kDequantizeUnit == 0);

template <class Kind>
int64_t decoded_floats(const Kind& kind) {
  return std::max(kind.width() * (Kind::kDepth + kLine),
                  kDecodedRows * (kDecodedCols + 2 * kDequantizeUnit));
}

// Columns that are rows of the weights, a panel of them at a time.
template <class Kind, class Sharing>
void pack_decoded_rows(const Kind& kind, const WeightMatrix& w, const Block& at, Sharing& sharing,
                       typename Kind::Value* out) {
  const int64_t width = kind.width(), apart = width * Kind::packed_depth(at.rows);
  const int64_t stride = at.rows + kLine;
  sharing.run(panels(at.cols, width), width * at.rows, [&](int64_t first, int64_t last, int t) {
    float* decoded = sharing.scratch(t);
    for (int64_t p = first; p < last; ++p) {
      const int64_t count = std::min(width, at.cols - p * width);
      for (int64_t i = 0; i < count; ++i)
        kind.kernels.dequantize(w, at.col + p * width + i, at.row, at.row + at.rows,
                                decoded + i * stride);
      kind.pack_cols(Strided(decoded, count, at.rows, stride).transposed(), apart, 0, 1,
                     out + p * apart);
    }
  });
}

// Columns of the weights, kDecodedRows of their rows and about kDecodedCols at a time.
template <class Kind, class Sharing>
void pack_decoded_cols(const Kind& kind, const WeightMatrix& w, const Block& at, Sharing& sharing,
                       typename Kind::Value* out) {
  const int64_t width = kind.width(), apart = width * Kind::packed_depth(at.rows);
  const int64_t at_once = kDecodedCols / width * width;
  const int64_t down = panels(at.rows, kDecodedRows), across = panels(at.cols, at_once);
  sharing.run(down * across, kDecodedRows * at_once, [&](int64_t first, int64_t last, int t) {
    float* decoded = sharing.scratch(t);
    for (int64_t part = first; part < last; ++part) {
      const int64_t k = part % down * kDecodedRows, j = part / down * at_once;
      const int64_t rows = std::min(kDecodedRows, at.rows - k);
      const int64_t cols = std::min(at_once, at.cols - j);
      const int64_t from = (at.col + j) / kDequantizeUnit * kDequantizeUnit;
      const int64_t to = std::min(round_up(at.col + j + cols, kDequantizeUnit), w.cols);
      for (int64_t i = 0; i < rows; ++i)
        kind.kernels.dequantize(w, at.row + k + i, from, to, decoded + i * (to - from));
      kind.pack_cols(Strided(decoded + at.col + j - from, rows, cols, to - from), apart, 0,
                     panels(cols, width), out + j / width * apart + k * width);
    }
  });
}

template <class Kind, class Sharing>
void pack_right(const Kind& kind, const RightSide& b, const Block& at, Sharing& sharing,
                typename Kind::Value* out) {
  if (b.stored() != nullptr && b.turned()) {
    pack_decoded_rows(kind, *b.stored(), at, sharing, out);
  } else if (b.stored() != nullptr) {
    pack_decoded_cols(kind, *b.stored(), at, sharing, out);
  } else {
    const Strided part = b.values().block(at.row, at.col, at.rows, at.cols);
    const int64_t width = kind.width(), apart = width * Kind::packed_depth(at.rows);
    sharing.run(panels(at.cols, width), width * at.rows, [&](int64_t first, int64_t last, int) {
      kind.pack_cols(part, apart, first, last, out);
    });
  }
}

// Packed rows of a times a packed block of b, to c.
template <class Kind, class Sharing>
void multiply_packed(const Kind& kind, const BlockSizes& sizes, int64_t rows, const Block& at,
                     bool add, const typename Kind::Value* packed_a,
                     const typename Kind::Value* packed_b, Target c, Sharing& sharing) {
  const int64_t packed_depth = Kind::packed_depth(at.rows);
  const int64_t task_cols = round_up(sizes.task_cols, kind.width());
  const int64_t across = panels(at.cols, task_cols), down = panels(rows, sizes.task_rows);
  const int64_t task_rows = round_up(panels(rows, down), kind.height());
  sharing.run(across * down, task_rows * task_cols * at.rows,
              [&](int64_t first, int64_t last, int) {
                for (int64_t task = first; task < last; ++task) {
                  const int64_t row = task % down * task_rows, col = task / down * task_cols;
                  kind.multiply({.a = packed_a + row * packed_depth,
                                 .b = packed_b + col * packed_depth,
                                 .rows = std::min(task_rows, rows - row),
                                 .cols = std::min(task_cols, at.cols - col),
                                 .depth = at.rows,
                                 .c = c.data + row * c.stride + at.col + col,
                                 .stride = c.stride,
                                 .add = add});
                }
              });
}

template <class Kind, class Sharing>
void multiply(const Kind& kind, const BlockSizes& sizes, Strided a,
              std::span<const RightProduct> products, typename Kind::Value* packed_a,
              typename Kind::Value* packed_b, Sharing&& sharing) {
  const int64_t height = kind.height();
  for (int64_t i = 0; i < a.rows; i += sizes.rows)
    for (int64_t k = 0; k < a.cols; k += Kind::kDepth) {
      const int64_t rows = std::min(sizes.rows, a.rows - i);
      const int64_t depth = std::min(Kind::kDepth, a.cols - k);
      const Strided part = a.block(i, k, rows, depth);
      sharing.run(panels(rows, height), height * depth, [&](int64_t first, int64_t last, int) {
        kind.pack_rows(part, height * Kind::packed_depth(depth), first, last, packed_a);
      });
      for (const auto& [b, c, into] : products)
        for (int64_t j = 0; j < b.cols(); j += sizes.cols) {
          const Block at{k, j, depth, std::min(sizes.cols, b.cols() - j)};
          pack_right(kind, b, at, sharing, packed_b);
          multiply_packed(kind, sizes, rows, at, k > 0 || into == Into::kAdd, packed_a, packed_b,
                          {c.data + i * c.stride, c.stride}, sharing);
        }
    }
}

// Values of a packed block of n rows or columns, in panels of `width`.
template <class Kind>
int64_t packed_size(int64_t n, int64_t width) {
  return round_up(n, width) * Kind::kDepth;
}

// Loops shared out to all threads, with scratch for each, or of one thread.
struct ByAll {
  Executor& ex;
  template <class Fn>
  void run(int64_t count, int64_t work, Fn&& fn) {
    ex.for_each(count, work, fn);
  }
  float* scratch(int thread) { return ex.scratch(thread); }
};
struct ByOne {
  template <class Fn>
  void run(int64_t count, int64_t, Fn&& fn) {
    fn(int64_t{0}, count, 0);
  }
  static float* scratch(int) { return nullptr; }
};

template <class Kind>
void multiply_by_all(Executor& ex, const Kind& kind, Strided a,
                     std::span<const RightProduct> products) {
  int64_t widest = 0;
  for (const RightProduct& p : products) {
    LAPIDARY_CHECK(a.cols == p.b.rows(), "[gemm] the depths of a and b");
    widest = std::max(widest, std::min(p.b.cols(), Kind::kCols));
    if (p.b.stored() != nullptr) ex.reserve_scratch(decoded_floats(kind));
  }
  const int64_t a_size = packed_size<Kind>(std::min(a.rows, kRows), kind.height());
  const int64_t b_size = packed_size<Kind>(widest, kind.width());
  const int64_t bytes = (a_size + b_size) * int64_t{sizeof(typename Kind::Value)};
  auto* packed = reinterpret_cast<typename Kind::Value*>(ex.packed(bytes));
  multiply(kind, {kRows, Kind::kCols, Kind::kTaskRows, kTaskCols}, a, products, packed,
           packed + a_size, ByAll{ex});
}

}  // namespace

RightSide::RightSide(const WeightMatrix& w) : values_(nullptr, w.rows, w.cols, w.cols) {
  const bool aligned = reinterpret_cast<uintptr_t>(w.data) % alignof(float) == 0;
  if (!w.quantized() && w.dtype == DType::kF32 && aligned)
    values_.data = reinterpret_cast<const float*>(w.data);
  else
    stored_ = &w;
}

void gemm(Executor& ex, Strided a, std::span<const RightProduct> products) {
  if (products.empty()) return;
  const Kernels& kernels = ex.kernels();
  if (ex.operands == Operands::kFloat)
    return multiply_by_all(ex, FloatOperands{kernels}, a, products);
  LAPIDARY_CHECK(kernels.gemm_bf16 != nullptr, "[gemm] kernels that multiply bf16");
  multiply_by_all(ex, Bf16Operands{kernels}, a, products);
}

int64_t gemm_scratch_floats(const Kernels& kernels) {
  return packed_size<FloatOperands>(kSerialRows, kernels.gemm_rows) +
         packed_size<FloatOperands>(kSerialCols, kernels.gemm_cols);
}

void gemm(const Kernels& kernels, Strided a, Strided b, Target c, Into into, float* scratch) {
  LAPIDARY_CHECK(a.cols == b.rows, "[gemm] the depths of a and b");
  const RightProduct product{b, c, into};
  multiply(FloatOperands{kernels}, {kSerialRows, kSerialCols, kSerialRows, kSerialCols}, a,
           {&product, 1}, scratch,
           scratch + packed_size<FloatOperands>(kSerialRows, kernels.gemm_rows), ByOne{});
}

void gemm_rows(Executor& ex, Matrix x, const WeightMatrix& w, Matrix y) {
  gemm(ex, x, RightSide(w).transposed(), y, Into::kOverwrite);
}

void gemm_cols(Executor& ex, Matrix dy, const WeightMatrix& w, Matrix dx) {
  gemm(ex, dy, w, dx, Into::kAdd);
}

}  // namespace lapidary
