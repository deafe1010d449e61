// Products of activations with stored weights, over F, a vector of 16 floats (README.md).
//
// y[t, n] is one chain of fused multiply-adds per lane, k = lane, lane + 16, ..., and one sum over
// the lanes at the end. Both ways below keep that order, so they give the same bits:
//   stream  few tokens: a row of weights is decoded in registers and used at once; what it costs is
//           reading and decoding the weights
//   panel   many tokens: kPanelRows rows are decoded once into scratch, then multiplied tile by
//           tile (kRows x kTokens outputs in registers), K in blocks so that a tile's activations
//           stay in the first-level cache
#pragma once

#include "base/float16.h"
#include "kernels/kernels.h"
#include "kernels/simd/elementwise.h"

namespace lapidary::simd {

constexpr int64_t kPanelRows = 16;
constexpr int64_t kBlockCols = 1024;  // of K; a multiple of 16

// Decoders of one row of weights: begin(g) before the columns of group g, then at(k) for the
// columns k .. k+15. A dense row is one group, and at(k, count) gives what is left of it at the
// end.
template <class F, class T>
struct DenseRow {
  static constexpr bool kAffine = false;
  const T* data;

  DenseRow(const WeightMatrix& w, int64_t row)
      : data(reinterpret_cast<const T*>(w.data) + row * w.cols) {}
  void begin(int64_t) {}
  F at(int64_t k) const { return F::load(data + k); }
  F at(int64_t k, int count) const { return F::load(data + k, count); }
};

template <class F, int kBits, class T>
struct AffineRow {
  static constexpr bool kAffine = true;
  using Codes = typename F::template Codes<kBits>;
  const uint8_t* data;
  const std::byte* scales;  // T, at any address: files align nothing
  const std::byte* biases;
  Codes codes;

  AffineRow(const WeightMatrix& w, int64_t row)
      : data(reinterpret_cast<const uint8_t*>(w.data) + row * w.row_bytes()),
        scales(w.scales + row * w.row_groups() * int64_t{sizeof(T)}),
        biases(w.biases + row * w.row_groups() * int64_t{sizeof(T)}) {}
  void begin(int64_t g) { codes.set(value(scales, g), value(biases, g)); }
  F at(int64_t k) const { return codes.decode(data + static_cast<uint64_t>(k) * kBits / 8); }

 private:
  static F value(const std::byte* base, int64_t index) {
    T stored;
    __builtin_memcpy(&stored, base + index * int64_t{sizeof(T)}, sizeof(T));
    return F::broadcast(stored);
  }
};

// Walks the columns of a matrix: begin(g) at each group, step(k) for 16 columns, and for a dense
// matrix whose width is not a multiple of 16 a last rest(k, count).
template <class Row, class Begin, class Step, class Rest>
[[gnu::always_inline]] inline void walk_columns(const WeightMatrix& w, Begin&& begin, Step&& step,
                                                Rest&& rest) {
  const int64_t whole = Row::kAffine ? w.cols : w.cols / 16 * 16;
  const int64_t group = Row::kAffine ? w.group : whole;
  int64_t k = 0;
  for (int64_t g = 0; k < whole; ++g) {
    begin(g);
    for (const int64_t end = k + group; k < end; k += 16) step(k);
  }
  if constexpr (!Row::kAffine)
    if (k < w.cols) rest(k, static_cast<int>(w.cols - k));
}

template <class F, class Row>
void decode_row(const WeightMatrix& w, int64_t row, float* out) {
  Row decoder(w, row);
  walk_columns<Row>(
      w, [&](int64_t g) { decoder.begin(g); }, [&](int64_t k) { store(out + k, decoder.at(k)); },
      [&](int64_t k, int count) {
        if constexpr (!Row::kAffine) store(out + k, decoder.at(k, count), count);
      });
}

// kRows rows of weights starting at n, kTokens tokens starting at x.
template <class F, class Row, int kRows, int kTokens>
void stream_tile(const WeightMatrix& w, int64_t n, const float* x, float* y) {
  static_assert(kRows == 1 || kRows == 4);
  F acc[kRows][kTokens];
  for (auto& row : acc)
    for (F& a : row) a = F::zero();
  const auto make = [&](int r) { return Row(w, n + (r < kRows ? r : 0)); };
  Row rows[4] = {make(0), make(1), make(2), make(3)};
  walk_columns<Row>(
      w,
      [&](int64_t g) {
        for (int r = 0; r < kRows; ++r) rows[r].begin(g);
      },
      [&](int64_t k) {
        F xs[kTokens];
        for (int t = 0; t < kTokens; ++t) xs[t] = F::load(x + t * w.cols + k);
        for (int r = 0; r < kRows; ++r) {
          const F weights = rows[r].at(k);
          for (int t = 0; t < kTokens; ++t) acc[r][t] = fma(weights, xs[t], acc[r][t]);
        }
      },
      [&](int64_t k, int count) {
        if constexpr (!Row::kAffine)
          for (int r = 0; r < kRows; ++r)
            for (int t = 0; t < kTokens; ++t)
              acc[r][t] = fma(rows[r].at(k, count), F::load(x + t * w.cols + k, count), acc[r][t]);
      });
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t) y[t * w.rows + n + r] = sum(acc[r][t]);
}

template <class F, class Row, int kTokens>
void stream(const MatmulArgs& a) {
  int64_t n = a.first_row;
  for (; n + 4 <= a.last_row; n += 4) stream_tile<F, Row, 4, kTokens>(*a.weight, n, a.x, a.y);
  for (; n < a.last_row; ++n) stream_tile<F, Row, 1, kTokens>(*a.weight, n, a.x, a.y);
}

// Adds a block of `cols` columns to kRows x kTokens running sums kept in `sums` as whole vectors.
template <class F, int kRows, int kTokens>
void panel_tile(const float* weights, const float* x, int64_t stride, int64_t cols, float* sums) {
  F acc[kRows][kTokens];
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t) acc[r][t] = F::load(sums + (r * kTokens + t) * 16);
  int64_t k = 0;
  for (; k + 16 <= cols; k += 16) {
    F ws[kRows];
    for (int r = 0; r < kRows; ++r) ws[r] = F::load(weights + r * stride + k);
    for (int t = 0; t < kTokens; ++t) {
      const F xv = F::load(x + t * stride + k);
      for (int r = 0; r < kRows; ++r) acc[r][t] = fma(ws[r], xv, acc[r][t]);
    }
  }
  if (k < cols) {
    const int count = static_cast<int>(cols - k);
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < kTokens; ++t)
        acc[r][t] = fma(F::load(weights + r * stride + k, count),
                        F::load(x + t * stride + k, count), acc[r][t]);
  }
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t) store(sums + (r * kTokens + t) * 16, acc[r][t]);
}

// All rows of a decoded panel for kTokens tokens.
template <class F, int kTokens>
void panel_tokens(const MatmulArgs& a, int64_t n, int64_t rows, int64_t t, const float* panel,
                  float* sums) {
  const int64_t cols = a.weight->cols;
  const float* x = a.x + t * cols;
  for (int64_t i = 0; i < rows * kTokens * 16; ++i) sums[i] = 0;
  for (int64_t k = 0; k < cols; k += kBlockCols) {
    const int64_t width = cols - k < kBlockCols ? cols - k : kBlockCols;
    int64_t r = 0;
    for (; r + F::kRows <= rows; r += F::kRows)
      panel_tile<F, F::kRows, kTokens>(panel + r * cols + k, x + k, cols, width,
                                       sums + r * kTokens * 16);
    for (; r < rows; ++r)
      panel_tile<F, 1, kTokens>(panel + r * cols + k, x + k, cols, width, sums + r * kTokens * 16);
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < kTokens; ++i)
      a.y[(t + i) * a.weight->rows + n + r] = sum(F::load(sums + (r * kTokens + i) * 16));
}

template <class F, class Row>
void panels(const MatmulArgs& a) {
  float* panel = a.scratch;
  float* sums = a.scratch + kPanelRows * a.weight->cols;
  for (int64_t n = a.first_row; n < a.last_row; n += kPanelRows) {
    const int64_t rows = a.last_row - n < kPanelRows ? a.last_row - n : kPanelRows;
    for (int64_t r = 0; r < rows; ++r)
      decode_row<F, Row>(*a.weight, n + r, panel + r * a.weight->cols);
    int64_t t = 0;
    for (; t + F::kTokens <= a.tokens; t += F::kTokens)
      panel_tokens<F, F::kTokens>(a, n, rows, t, panel, sums);
    for (; t < a.tokens; ++t) panel_tokens<F, 1>(a, n, rows, t, panel, sums);
  }
}

template <class F, class Row>
void matmul_rows(const MatmulArgs& a) {
  switch (a.tokens) {
    case 0:
      return;
    case 1:
      return stream<F, Row, 1>(a);
    case 2:
      return stream<F, Row, 2>(a);
    case 3:
      return stream<F, Row, 3>(a);
    default:
      return panels<F, Row>(a);
  }
}

// Calls fn with the decoder type of the matrix's format.
template <class F, class T, class Fn>
inline void with_row_type(int bits, Fn&& fn) {
  switch (bits) {
    case 0:
      return fn.template operator()<DenseRow<F, T>>();
    case 2:
      return fn.template operator()<AffineRow<F, 2, T>>();
    case 3:
      return fn.template operator()<AffineRow<F, 3, T>>();
    case 4:
      return fn.template operator()<AffineRow<F, 4, T>>();
    case 5:
      return fn.template operator()<AffineRow<F, 5, T>>();
    case 6:
      return fn.template operator()<AffineRow<F, 6, T>>();
    case 8:
      return fn.template operator()<AffineRow<F, 8, T>>();
  }
}
template <class F, class Fn>
inline void with_row_type(const WeightMatrix& w, Fn&& fn) {
  switch (w.dtype) {
    case DType::kF32:
      return with_row_type<F, float>(w.bits, fn);
    case DType::kF16:
      return with_row_type<F, Float16>(w.bits, fn);
    case DType::kBF16:
      return with_row_type<F, BFloat16>(w.bits, fn);
    default:
      return;  // the owner of the matrix has checked
  }
}

template <class F>
void matmul(const MatmulArgs& a) {
  with_row_type<F>(*a.weight, [&]<class Row>() { matmul_rows<F, Row>(a); });
}

template <class F>
void dequantize_row(const WeightMatrix& w, int64_t row, float* out) {
  with_row_type<F>(w, [&]<class Row>() { decode_row<F, Row>(w, row, out); });
}

}  // namespace lapidary::simd
