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
constexpr int64_t kStreamTokens = 3;

// Decoders: begin(k) is called at k = 0 and then whenever k reaches a multiple of `group`;
// at(k) gives the weights k .. k+15 of the row.
template <class F, class T>
struct DenseRow {
  const T* data;
  int64_t cols;
  int64_t group;

  DenseRow(const WeightMatrix& w, int64_t row)
      : data(reinterpret_cast<const T*>(w.data) + row * w.cols), cols(w.cols), group(w.cols) {}
  void begin(int64_t) {}
  F at(int64_t k) const {
    return k + 16 <= cols ? F::load(data + k) : F::load(data + k, static_cast<int>(cols - k));
  }
};

template <class F, int kBits, class T>
struct AffineRow {
  using Codes = typename F::template Codes<kBits>;
  const uint8_t* data;
  const T* scales;
  const T* biases;
  int64_t group;
  Codes codes;

  AffineRow(const WeightMatrix& w, int64_t row)
      : data(reinterpret_cast<const uint8_t*>(w.data) + row * w.row_bytes()),
        scales(reinterpret_cast<const T*>(w.scales) + row * w.row_groups()),
        biases(reinterpret_cast<const T*>(w.biases) + row * w.row_groups()),
        group(w.group) {}
  void begin(int64_t k) { codes.set(to_float(scales[k / group]), to_float(biases[k / group])); }
  F at(int64_t k) const { return codes.decode(data + k * kBits / 8); }
};

template <class F, class Row>
void decode_row(const WeightMatrix& w, int64_t row, float* out) {
  Row decoder(w, row);
  for (int64_t k = 0; k < w.cols; k += decoder.group) {
    decoder.begin(k);
    const int64_t end = k + decoder.group;
    for (int64_t i = k; i < end; i += 16)
      store_piece(out + i, decoder.at(i), end - i >= 16 ? 16 : static_cast<int>(end - i));
  }
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
  const int64_t group = rows[0].group;
  for (int64_t g = 0; g < w.cols; g += group) {
    for (int r = 0; r < kRows; ++r) rows[r].begin(g);
    for (int64_t k = g; k < g + group; k += 16) {
      const int count = g + group - k >= 16 ? 16 : static_cast<int>(g + group - k);
      F xs[kTokens];
      for (int t = 0; t < kTokens; ++t) xs[t] = load_piece<F>(x + t * w.cols + k, count);
      for (int r = 0; r < kRows; ++r) {
        const F weights = rows[r].at(k);
        for (int t = 0; t < kTokens; ++t) acc[r][t] = fma(weights, xs[t], acc[r][t]);
      }
    }
  }
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
      return stream<F, Row, kStreamTokens>(a);
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
