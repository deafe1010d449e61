// Products of activations with stored weights, over F, a vector of 16 floats (README.md).
//
// y[t, n] is one chain of fused multiply-adds per lane, k = lane, lane + 16, ..., and one sum over
// the lanes at the end. Both ways below keep that order, so they give the same bits:
//   stream  few tokens: a row of weights is decoded in registers and used at once; what it costs is
//           reading and decoding the weights
//   panel   more tokens: kPanelRows rows are multiplied with a group of tokens after another, block
//           of columns by block, tile by tile (kRows x kTokens outputs in registers). They are
//           decoded once into scratch, unless the weights are dense and the tokens still few
#pragma once

#include <type_traits>

#include "base/float16.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"
#include "kernels/simd/elementwise.h"

namespace lapidary::simd {

constexpr int64_t kPanelRows = 16;
constexpr int64_t kGroupTokens = 48;   // whose sums fit the second-level cache beside a panel
constexpr int64_t kBlockCols = 512;    // of K; a multiple of 16
constexpr int64_t kDirectTokens = 24;  // up to so many, dense weights are decoded as they are used

// Decoders of one row of weights: begin(g) before the columns of group g, then at(k) for the
// columns k .. k+15. A dense row is one group, and at(k, count) gives what is left of it at the
// end.
template <class F, class T>
struct DenseRow {
  static constexpr bool kGrouped = false;
  const T* data;

  DenseRow(const WeightMatrix& w, int64_t row)
      : data(reinterpret_cast<const T*>(w.data) + row * w.cols) {}
  void begin(int64_t) {}
  F at(int64_t k) const { return F::load(data + k); }
  F at(int64_t k, int count) const { return F::load(data + k, count); }
};

template <class F, int kBits, class T>
struct AffineRow {
  static constexpr bool kGrouped = true;
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

// Takes the codes of a block apart when its first group begins.
template <class F, class Block>
struct BlockRow {
  static constexpr bool kGrouped = true;
  static constexpr const BlockFormat& kSizes = block_format(Block::kFormat);
  static constexpr int64_t kGroups = kSizes.cols / kSizes.group;
  using Codes = typename F::template Codes<8>;
  const uint8_t* data;
  uint8_t unpacked[kSizes.cols];
  float scales[kGroups], biases[kGroups];
  Codes codes;

  BlockRow(const WeightMatrix& w, int64_t row)
      : data(reinterpret_cast<const uint8_t*>(w.data) + row * w.row_bytes()) {}
  void begin(int64_t g) {
    if (g % kGroups == 0) {
      const uint8_t* block = data + g / kGroups * kSizes.bytes;
      Block::codes(block, unpacked);
      Block::scales(block, scales, biases);
    }
    codes.set(F::broadcast(scales[g % kGroups]), F::broadcast(biases[g % kGroups]));
  }
  F at(int64_t k) const { return codes.decode(unpacked + k % kSizes.cols); }
};

// Walks columns [first, last) of a matrix, whole groups: begin(g) at each group, step(k) for 16
// columns, and where a dense matrix's are not a multiple of 16 a last rest(k, count).
template <class Row, class Begin, class Step, class Rest>
[[gnu::always_inline]] inline void walk_columns(const WeightMatrix& w, int64_t first, int64_t last,
                                                Begin&& begin, Step&& step, Rest&& rest) {
  const int64_t whole = Row::kGrouped ? last : first + (last - first) / 16 * 16;
  const int64_t group = Row::kGrouped ? w.group : whole - first;
  int64_t k = first;
  for (int64_t g = Row::kGrouped ? first / w.group : 0; k < whole; ++g) {
    begin(g);
    for (const int64_t end = k + group; k < end; k += 16) step(k);
  }
  if constexpr (!Row::kGrouped)
    if (k < last) rest(k, static_cast<int>(last - k));
}

template <class F, class Row>
void decode_row(const WeightMatrix& w, int64_t row, int64_t first, int64_t last, float* out) {
  Row decoder(w, row);
  walk_columns<Row>(
      w, first, last, [&](int64_t g) { decoder.begin(g); },
      [&](int64_t k) { store(out + k - first, decoder.at(k)); },
      [&](int64_t k, int count) {
        if constexpr (!Row::kGrouped) store(out + k - first, decoder.at(k, count), count);
      });
}

// kRows rows of weights, n and others `apart` from each other, kTokens tokens starting at x. (The
// loops over both are unrolled before GCC decides what lives in registers: left to itself it keeps
// the sums in memory.)
template <class F, class Row, int kRows, int kTokens>
void stream_tile(const WeightMatrix& w, int64_t n, int64_t apart, const float* x, float* y) {
  F sums[kRows][kTokens];
  const auto for_each_sum = [&](auto&& fn) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
      for (int t = 0; t < kTokens; ++t) fn(r, t);
    }
  };
  for_each_sum([&](int r, int t) { sums[r][t] = F::zero(); });
  static_assert(kRows == 1 || kRows == 2 || kRows == 4);
  const auto make = [&](int r) { return Row(w, n + (r < kRows ? r * apart : 0)); };
  Row rows[4] = {make(0), make(1), make(2), make(3)};
  walk_columns<Row>(
      w, 0, w.cols,
      [&](int64_t g) {
        for (int r = 0; r < kRows; ++r) rows[r].begin(g);
      },
      [&](int64_t k) {
        F weights[kRows];
        for (int r = 0; r < kRows; ++r) weights[r] = rows[r].at(k);
        for_each_sum([&](int r, int t) {
          sums[r][t] = fma(weights[r], F::load(x + t * w.cols + k), sums[r][t]);
        });
      },
      [&](int64_t k, int count) {
        if constexpr (!Row::kGrouped)
          for_each_sum([&](int r, int t) {
            sums[r][t] = fma(rows[r].at(k, count), F::load(x + t * w.cols + k, count), sums[r][t]);
          });
      });
  for_each_sum([&](int r, int t) { y[t * w.rows + n + r * apart] = sum(sums[r][t]); });
}

template <class F, class Row, int kTokens>
void stream(const MatmulArgs& a) {
  constexpr int kSums = F::kRows * F::kTokens / (16 / F::Part::kLanes);  // that registers hold
  constexpr int kRows = kSums >= 4 * kTokens ? 4 : 2;
  const int64_t apart = (a.last_row - a.first_row) / kRows;
  for (int64_t n = a.first_row; n < a.first_row + apart; ++n)
    stream_tile<F, Row, kRows, kTokens>(*a.weight, n, apart, a.x, a.y);
  for (int64_t n = a.first_row + kRows * apart; n < a.last_row; ++n)
    stream_tile<F, Row, 1, kTokens>(*a.weight, n, 0, a.x, a.y);
}

// fn<count>(token) for pieces of at most 6 tokens, dealt out evenly: one that is left alone waits
// for its own sums.
template <class Fn>
[[gnu::always_inline]] inline void for_each_piece(int64_t tokens, Fn&& fn) {
  for (int64_t t = 0, left = (tokens + 5) / 6; left > 0; --left) {
    const int64_t count = (tokens - t + left - 1) / left;
    switch (count) {
      case 1:
        fn.template operator()<1>(t);
        break;
      case 2:
        fn.template operator()<2>(t);
        break;
      case 3:
        fn.template operator()<3>(t);
        break;
      case 4:
        fn.template operator()<4>(t);
        break;
      case 5:
        fn.template operator()<5>(t);
        break;
      case 6:
        fn.template operator()<6>(t);
    }
    t += count;
  }
}

// fn<kRows, kTokens>(row, token, sums) for tiles that cover `rows` x `tokens` outputs; `sums` is
// where the tile's [kRows, kTokens] running sums, a whole F each, lie among those of all tiles.
template <class F, class Fn>
[[gnu::always_inline]] inline void for_each_tile(int64_t rows, int64_t tokens, float* sums,
                                                 Fn&& fn) {
  static_assert(F::kTokens == 6);
  for_each_piece(tokens, [&]<int kTokens>(int64_t t) {
    int64_t r = 0;
    for (; r + F::kRows <= rows; r += F::kRows, sums += F::kRows * kTokens * 16)
      fn.template operator()<F::kRows, kTokens>(r, t, sums);
    for (; r < rows; ++r, sums += kTokens * 16) fn.template operator()<1, kTokens>(r, t, sums);
  });
}

// Adds a block of columns to a tile's sums, or begins them, one register's lanes after another: the
// more sums the registers hold, the fewer loads an operation needs. T: what the weights are in; not
// f32, they come from memory, and those that the rows need next are `next` further.
template <class F, int kRows, int kTokens, class T>
void panel_tile(const T* weights, const float* x, int64_t stride, int64_t cols, bool add,
                int64_t next, float* sums) {
  using Part = typename F::Part;
  constexpr int kPasses = 16 / Part::kLanes, kPassRows = (kRows + kPasses - 1) / kPasses;
  const int64_t whole = cols / 16 * 16;
  for (int first = 0; first < 16; first += Part::kLanes) {
    Part acc[kRows][kTokens];
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < kTokens; ++t)
        acc[r][t] = add ? Part::load(sums + (r * kTokens + t) * 16 + first) : Part::zero();
    const T* ahead = weights + next + first / Part::kLanes * kRows / kPasses * stride;
    for (int64_t k = first; k < whole; k += 16) {
      if constexpr (!std::is_same_v<T, float>)
        for (int r = 0; r < kPassRows; ++r) __builtin_prefetch(ahead + r * stride + k);
      Part ws[kRows];
      for (int r = 0; r < kRows; ++r) ws[r] = Part::load(weights + r * stride + k);
      for (int t = 0; t < kTokens; ++t) {
        const Part xv = Part::load_once(x + t * stride + k);
        for (int r = 0; r < kRows; ++r) acc[r][t] = fma(ws[r], xv, acc[r][t]);
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < kTokens; ++t) store(sums + (r * kTokens + t) * 16 + first, acc[r][t]);
  }
  if (whole == cols) return;
  const int count = static_cast<int>(cols - whole);
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t) {
      float* sum = sums + (r * kTokens + t) * 16;
      store(sum, fma(F::load(weights + r * stride + whole, count),
                     F::load(x + t * stride + whole, count), F::load(sum)));
    }
}

// All rows of a panel for a group of tokens. A block of the panel stays in the first-level cache
// while the tokens pass, the panel in the second-level cache.
template <class F, class T>
void panel_group(const MatmulArgs& a, int64_t n, int64_t rows, int64_t token, int64_t tokens,
                 const T* panel, float* sums) {
  const int64_t cols = a.weight->cols;
  const float* x = a.x + token * cols;
  const int64_t blocks = (cols + kBlockCols - 1) / kBlockCols;
  const int64_t step = (cols + 32 * blocks - 1) / (32 * blocks) * 32;  // blocks of about one size
  for (int64_t k = 0; k < cols; k += step) {
    const int64_t width = cols - k < step ? cols - k : step;
    const int64_t next = k + width < cols ? width : kPanelRows * cols - k;
    for_each_tile<F>(rows, tokens, sums,
                     [&]<int kRows, int kTokens>(int64_t r, int64_t t, float* tile) {
                       panel_tile<F, kRows, kTokens>(panel + r * cols + k, x + t * cols + k, cols,
                                                     width, k > 0, next, tile);
                     });
  }
  for_each_tile<F>(rows, tokens, sums,
                   [&]<int kRows, int kTokens>(int64_t r, int64_t t, float* tile) {
                     for (int i = 0; i < kRows; ++i)
                       for (int j = 0; j < kTokens; ++j)
                         a.y[(token + t + j) * a.weight->rows + n + r + i] =
                             sum(F::load(tile + (i * kTokens + j) * 16));
                   });
}

template <class F, class Row>
void panels(const MatmulArgs& a) {
  float* panel = a.scratch;
  float* sums = a.scratch + kPanelRows * a.weight->cols;
  for (int64_t n = a.first_row; n < a.last_row; n += kPanelRows) {
    const int64_t rows = a.last_row - n < kPanelRows ? a.last_row - n : kPanelRows;
    if constexpr (!Row::kGrouped) {
      if (a.tokens <= kDirectTokens) {
        panel_group<F>(a, n, rows, 0, a.tokens, Row(*a.weight, n).data, sums);
        continue;
      }
    }
    for (int64_t r = 0; r < rows; ++r)
      decode_row<F, Row>(*a.weight, n + r, 0, a.weight->cols, panel + r * a.weight->cols);
    for (int64_t t = 0; t < a.tokens; t += kGroupTokens)
      panel_group<F>(a, n, rows, t, a.tokens - t < kGroupTokens ? a.tokens - t : kGroupTokens,
                     static_cast<const float*>(panel), sums);
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

// Calls fn with the decoder type of a matrix's format.
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
  if (w.blocks())
    return blocks::with_block(w.format,
                              [&]<class Block>() { fn.template operator()<BlockRow<F, Block>>(); });
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
void dequantize(const WeightMatrix& w, int64_t row, int64_t first, int64_t last, float* out) {
  with_row_type<F>(w, [&]<class Row>() { decode_row<F, Row>(w, row, first, last, out); });
}

}  // namespace lapidary::simd
