// Products of affine weights with activations rounded to 8 bits (QuantizedRows), over F, a vector
// of 16 floats, I, one of 16 32-bit integers, and Q, what an instruction set does with bytes
// (README.md). The dots of groups are whole numbers, so only the float chain below has an order,
// and it is the same for both ways:
//   rows    few tokens: 16 rows of weights, far from each other so that the memory system follows
//           16 streams, are unpacked in registers and used at once
//   panels  many tokens: a block of kPanel rows is packed once into scratch, transposed, so that
//           one instruction serves 16 rows, and then multiplied with every token
#pragma once

#include "base/float16.h"
#include "kernels/kernels.h"
#include "kernels/simd/elementwise.h"

namespace lapidary::simd {

constexpr int64_t kPanel = 64;                             // rows packed together
constexpr int64_t kUnitBytes = 16 * kQuantUnit;            // a packed unit of 16 rows
constexpr int64_t kBlockUnits = kQuantBlock / kQuantUnit;  // units of a block
constexpr int64_t kPackedBytes = kPanel * kQuantBlock;     // of a panel's block
constexpr int kRowTokens = 4;                              // that the first way takes at most

// ---- rounding

template <class F, class Q, int kBits>
void quantize_block(const float* x, int64_t cols, int group, int8_t* codes, float& step,
                    float* sums) {
  F top = F::zero();
  for (int64_t k = 0; k < cols; k += 16) top = max(top, abs(F::load(x + k)));
  const float largest = max_lane(top);
  step = largest / 127.0f;
  const F inverse = F::broadcast(largest > 0 ? 127.0f / largest : 0.0f);
  for (int64_t unit = 0; unit < cols; unit += kQuantUnit) {
    alignas(64) int8_t natural[kQuantUnit];
    for (int64_t k = 0; k < kQuantUnit; k += 16)
      Q::store_codes(natural + k, round(F::load(x + unit + k) * inverse));
    if (group == 32)
      for (int64_t i = 0; i < kQuantUnit; ++i)
        codes[unit + unit_position(kBits, 32, i)] = natural[i];
    else
      Q::template arrange<kBits>(natural, codes + unit);
  }
  for (int64_t k = 0; k < cols; k += group) {  // whole numbers below 2^24: any order is exact
    F total = F::zero();
    for (int64_t i = k; i < k + group; i += 16) total = total + round(F::load(x + i) * inverse);
    sums[k / group] = sum(total);
  }
}

template <class F, class Q, int kBits>
void quantize_rows(const QuantizeArgs& a) {
  const QuantizedRows& out = *a.out;
  for (int64_t t = a.first_token; t < a.last_token; ++t)
    for (int64_t b = 0; b < out.blocks(); ++b) {
      const int64_t cell = b * out.tokens + t, begin = b * kQuantBlock;
      const int64_t cols = out.cols - begin < kQuantBlock ? out.cols - begin : kQuantBlock;
      quantize_block<F, Q, kBits>(a.x + t * out.cols + begin, cols, out.group,
                                  out.codes + cell * kQuantBlock, out.steps[cell],
                                  out.sums + cell * kQuantGroups);
    }
}

// ---- what both ways share

// Row row[r] of scales (or biases) to lane r as f32, [groups, stride].
template <class Q>
void gather_scales(const WeightMatrix& w, const std::byte* table, const int64_t* row, float* out,
                   int64_t stride) {
  const int64_t groups = w.row_groups();
  const std::byte* data[16];
  for (int r = 0; r < 16; ++r) data[r] = table + row[r] * groups * size_of(w.dtype);
  int64_t g = 0;
  if (w.dtype != DType::kF32 && groups >= 8)
    while (g < groups) {
      const int64_t begin = g + 8 <= groups ? g : groups - 8;  // the last 8 may overlap
      Q::transpose_8(data, begin, w.dtype == DType::kBF16, out + begin * stride, stride);
      g = begin + 8;
    }
  for (; g < groups; ++g)
    for (int r = 0; r < 16; ++r) out[g * stride + r] = float_at(data[r], w.dtype, g);
}

// y + step * sum over groups of (scale * dot + bias * sum), for 16 rows and one token.
// dots: [groups, dots_stride]; scales, biases: [groups, stride]; sums: [groups].
template <class F, class I>
[[gnu::always_inline]] inline F fold_block(F y, const I* dots, int64_t dots_stride, int64_t groups,
                                           const float* scales, const float* biases, int64_t stride,
                                           const float* sums, float step) {
  F s = F::zero();
  for (int64_t g = 0; g < groups; ++g) {
    s = fma(F::load(scales + g * stride), F::from(dots[g * dots_stride]), s);
    s = fma(F::load(biases + g * stride), F::broadcast(sums[g]), s);
  }
  return fma(F::broadcast(step), s, y);
}

// ---- few tokens

// The activation codes of few tokens. For groups of 32 two copies of them, arranged as for groups
// of 64, with the other half of every unit zero: the dot of a unit with such a copy is that of one
// group.
struct RowCodes {
  const int8_t* codes[2];
};
static inline RowCodes split_halves(const QuantizedRows& x, int8_t* scratch) {
  if (x.group != 32) return {{x.codes, nullptr}};
  const int64_t bytes = x.blocks() * x.tokens * kQuantBlock;
  for (int64_t index = 0; index < kQuantUnit; ++index) {
    const int64_t from = unit_position(x.bits, 32, index), to = unit_position(x.bits, 64, index);
    const int64_t half = index / 32;
    for (int64_t unit = 0; unit < bytes; unit += kQuantUnit) {
      scratch[half * bytes + unit + to] = x.codes[unit + from];
      scratch[(1 - half) * bytes + unit + to] = 0;
    }
  }
  return {{scratch, scratch + bytes}};
}

// Dots of the groups of one block, [kTokens][kQuantGroups], for 16 rows. `cell` is the offset of
// the block's first token in the codes; rows point at the block.
template <class I, class Q, int kBits, int kTokens>
[[gnu::always_inline]] inline void block_dots(const uint8_t* const* rows, int64_t units,
                                              int64_t offset, const RowCodes& x, int group,
                                              int64_t cell, I (*dots)[kQuantGroups]) {
  const auto units_of = [&](int64_t copy, I(*out)[kQuantGroups]) {
    Q::template dot_units<kBits, kTokens>(rows, offset, units, x.codes[copy] + cell, out);
  };
  if (group == 32) {
    I halves[2][kTokens][kQuantGroups];
    units_of(0, halves[0]);
    units_of(1, halves[1]);
    for (int t = 0; t < kTokens; ++t)
      for (int64_t g = 0; g < 2 * units; ++g) dots[t][g] = halves[g % 2][t][g / 2];
    return;
  }
  units_of(0, dots);
  if (group == 128)
    for (int t = 0; t < kTokens; ++t)
      for (int64_t g = 0; g < units / 2; ++g) dots[t][g] = dots[t][2 * g] + dots[t][2 * g + 1];
}

template <class F, class I, class Q, int kBits, int kTokens>
void rows_tile(const QuantizedMatmulArgs& a, const int64_t* row, const RowCodes& codes,
               float* scales, float* biases) {
  const WeightMatrix& w = *a.weight;
  const QuantizedRows& x = *a.x;
  const uint8_t* data[16];
  for (int r = 0; r < 16; ++r)
    data[r] = reinterpret_cast<const uint8_t*>(w.data) + row[r] * w.row_bytes();
  gather_scales<Q>(w, w.scales, row, scales, 16);
  gather_scales<Q>(w, w.biases, row, biases, 16);
  F y[kTokens];
  for (F& sum : y) sum = F::zero();
  const int64_t row_groups = w.row_groups(), block_groups = kQuantBlock / w.group;
  for (int64_t b = 0, g = 0; g < row_groups; ++b, g += block_groups) {
    const int64_t begin = b * kQuantBlock, cell = b * kTokens;
    const int64_t cols = w.cols - begin < kQuantBlock ? w.cols - begin : kQuantBlock;
    const int64_t groups = row_groups - g < block_groups ? row_groups - g : block_groups;
    I dots[kTokens][kQuantGroups];
    block_dots<I, Q, kBits, kTokens>(data, cols / kQuantUnit, begin * kBits / 8, codes, w.group,
                                     cell * kQuantBlock, dots);
    for (int t = 0; t < kTokens; ++t)
      y[t] = fold_block(y[t], dots[t], 1, groups, scales + g * 16, biases + g * 16, 16,
                        x.sums + (cell + t) * kQuantGroups, x.steps[cell + t]);
  }
  for (int t = 0; t < kTokens; ++t) {
    float lanes[16];
    store(lanes, y[t]);
    for (int r = 0; r < 16; ++r) a.y[t * w.rows + row[r]] = lanes[r];
  }
}

// The rows that 16 lanes take, tile after tile. Lane r walks its own `tiles` rows, from the r-th of
// them around: lanes that stood at the same place a power of two apart would share the few places
// of one set of the cache. Rows past the end repeat the last; what comes of them is the same.
class LaneRows {
 public:
  LaneRows(int64_t first, int64_t last)
      : first_(first), last_(last), tiles_((last - first + 15) / 16) {
    for (int64_t r = 0; r < 16; ++r) place_[r] = r % tiles_;
  }
  int64_t tiles() const { return tiles_; }
  // The next tile's; around to the first after the last.
  void take(int64_t* row) {
    for (int64_t r = 0; r < 16; ++r) {
      const int64_t wanted = first_ + r * tiles_ + place_[r];
      row[r] = wanted < last_ ? wanted : last_ - 1;
      place_[r] = place_[r] + 1 < tiles_ ? place_[r] + 1 : 0;
    }
  }

 private:
  int64_t first_, last_, tiles_;
  int64_t place_[16];
};

// The scales and biases of a tile's rows lie on 32 streams of a few bytes per tile, more than the
// hardware foresees. A row's first line was its neighbour's last. (Always inline: GCC 12 takes a
// function that only prefetches for one without effect, and drops the call.)
[[gnu::always_inline]] static inline void prefetch_scales(const WeightMatrix& w,
                                                          const int64_t* row) {
  const int64_t bytes = w.row_groups() * size_of(w.dtype);
  for (const std::byte* table : {w.scales, w.biases})
    for (int r = 0; r < 16; ++r)
      for (int64_t at = bytes - 1; at >= 0; at -= 64)
        __builtin_prefetch(table + row[r] * bytes + at);
}

template <class F, class I, class Q, int kBits, int kTokens>
void quantized_rows(const QuantizedMatmulArgs& a) {
  if (a.first_row >= a.last_row) return;
  float* scales = a.scratch;
  float* biases = scales + 16 * a.weight->row_groups();
  const RowCodes codes =
      split_halves(*a.x, reinterpret_cast<int8_t*>(biases + 16 * a.weight->row_groups()));
  LaneRows lanes(a.first_row, a.last_row);
  int64_t rows[2][16];  // of this tile and the next, in turn
  lanes.take(rows[0]);
  for (int64_t i = 0; i < lanes.tiles(); ++i) {
    lanes.take(rows[(i + 1) % 2]);
    prefetch_scales(*a.weight, rows[(i + 1) % 2]);
    rows_tile<F, I, Q, kBits, kTokens>(a, rows[i % 2], codes, scales, biases);
  }
}

// ---- many tokens

// Where the quads (4 codes of a row, one instruction's worth) that Q unpacks one after another lie
// in a packed unit: as the activations do.
struct QuadOrder {
  uint8_t place[16];
};
constexpr QuadOrder quad_order(int bits, int group) {
  QuadOrder order{};
  for (int64_t index = 0; index < kQuantUnit; ++index) {
    const int64_t from = unit_position(bits, 64, index);
    if (from % 4 == 0)
      order.place[from / 4] = static_cast<uint8_t>(unit_position(bits, group, index) / 4);
  }
  return order;
}

// Dots of a block's groups for 16 packed rows and kTokens tokens, [kQuantGroups][kTokens].
template <class I, class Q, int kBits, int kTokens>
[[gnu::always_inline]] inline void panel_dots(const uint8_t* packed, int64_t units, int group,
                                              const int8_t* codes, I (*dots)[kTokens]) {
  for (int64_t u = 0; u < units; ++u) {
    const uint8_t* unit = packed + u * kUnitBytes;
    const int8_t* x = codes + u * kQuantUnit;
    if (group == 32) {
      Q::template dot_quads<kBits, kTokens>(unit, 8, x, dots[2 * u], false);
      Q::template dot_quads<kBits, kTokens>(unit + kUnitBytes / 2, 8, x + 32, dots[2 * u + 1],
                                            false);
    } else if (group == 64) {
      Q::template dot_quads<kBits, kTokens>(unit, 16, x, dots[u], false);
    } else {
      Q::template dot_quads<kBits, kTokens>(unit, 16, x, dots[u / 2], u % 2 == 1);
    }
  }
}

// One block of 16 packed rows for tokens t ... t + kTokens - 1, added to y (or put there, when it
// is the first). `rows` < 16 at the end of a matrix.
template <class F, class I, class Q, int kBits, int kTokens>
void panel_tile(const QuantizedMatmulArgs& a, int64_t b, int64_t t, const uint8_t* packed,
                const float* scales, const float* biases, int64_t n, int rows) {
  const QuantizedRows& x = *a.x;
  const int64_t begin = b * kQuantBlock, cell = b * x.tokens + t;
  const int64_t cols = x.cols - begin < kQuantBlock ? x.cols - begin : kQuantBlock;
  const int64_t groups = cols / x.group;
  I dots[kQuantGroups][kTokens];
  panel_dots<I, Q, kBits, kTokens>(packed, cols / kQuantUnit, x.group, x.codes + cell * kQuantBlock,
                                   dots);
  for (int i = 0; i < kTokens; ++i) {
    float* out = a.y + (t + i) * a.weight->rows + n;
    const F before = b == 0 ? F::zero() : load_piece<F>(out, rows);
    store_piece(out,
                fold_block(before, &dots[0][i], kTokens, groups, scales, biases, kPanel,
                           x.sums + (cell + i) * kQuantGroups, x.steps[cell + i]),
                rows);
  }
}

template <class F, class I, class Q, int kBits>
void panel_block(const QuantizedMatmulArgs& a, int64_t b, const uint8_t* packed,
                 const float* scales, const float* biases, int64_t n, int64_t rows) {
  const int64_t first_group = b * kQuantBlock / a.x->group * kPanel;
  const auto tile = [&]<int kTokens>(int64_t t) {
    for (int64_t r = 0; r < rows; r += 16)
      panel_tile<F, I, Q, kBits, kTokens>(a, b, t, packed + r / 16 * kBlockUnits * kUnitBytes,
                                          scales + first_group + r, biases + first_group + r, n + r,
                                          static_cast<int>(rows - r < 16 ? rows - r : 16));
  };
  int64_t t = 0;
  for (; t + Q::kTokens <= a.x->tokens; t += Q::kTokens) tile.template operator()<Q::kTokens>(t);
  for (; t + 4 <= a.x->tokens; t += 4) tile.template operator()<4>(t);
  for (; t < a.x->tokens; ++t) tile.template operator()<1>(t);
}

// Packs a block of up to 64 rows. They are that many short pieces, too many streams for the
// hardware to foresee: meanwhile asks for the next block of the panel or, after the last, for the
// first of the next panel (past the end of the matrix that does nothing).
template <class Q, int kBits>
void pack_block(const WeightMatrix& w, const uint8_t* const* data, int64_t rows, int64_t block,
                const QuadOrder& order, uint8_t* packed) {
  constexpr int64_t kUnit = kQuantUnit * kBits / 8, kBlock = kQuantBlock * kBits / 8;
  const int64_t begin = block * kBlock, row_bytes = w.row_bytes(), after = begin + kBlock;
  const int64_t end = after < row_bytes ? after : row_bytes;
  const int64_t next = after < row_bytes ? after : kPanel * row_bytes;
  for (int64_t r = 0; r < rows; r += 16)
    for (int64_t at = 0; begin + at < end; at += kUnit) {
      if (at % 64 < kUnit)
        for (int64_t i = r; i < r + 16; ++i) __builtin_prefetch(data[i] + next + at);
      Q::template pack_unit<kBits>(data + r, begin + at, order,
                                   packed + (r / 16 * kBlockUnits + at / kUnit) * kUnitBytes);
    }
}

template <class F, class I, class Q, int kBits>
void quantized_panels(const QuantizedMatmulArgs& a) {
  const WeightMatrix& w = *a.weight;
  float* scales = a.scratch;
  float* biases = scales + kPanel * w.row_groups();
  uint8_t* packed = reinterpret_cast<uint8_t*>(biases + kPanel * w.row_groups());
  constexpr QuadOrder kOrders[2] = {quad_order(kBits, 32), quad_order(kBits, 64)};
  const QuadOrder& order = kOrders[w.group == 32 ? 0 : 1];
  Q::begin();
  for (int64_t n = a.first_row; n < a.last_row; n += kPanel) {
    const int64_t rows = a.last_row - n < kPanel ? a.last_row - n : kPanel;
    int64_t row[kPanel];  // those past the end repeat the last
    const uint8_t* data[kPanel];
    for (int64_t r = 0; r < kPanel; ++r) {
      row[r] = n + (r < rows ? r : rows - 1);
      data[r] = reinterpret_cast<const uint8_t*>(w.data) + row[r] * w.row_bytes();
    }
    for (int64_t r = 0; r < rows; r += 16) {
      gather_scales<Q>(w, w.scales, row + r, scales + r, kPanel);
      gather_scales<Q>(w, w.biases, row + r, biases + r, kPanel);
    }
    for (int64_t b = 0; b < a.x->blocks(); ++b) {
      pack_block<Q, kBits>(w, data, rows, b, order, packed);
      panel_block<F, I, Q, kBits>(a, b, packed, scales, biases, n, rows);
    }
  }
  Q::end();
}

// ---- the two entries of the table

template <class F, class I, class Q, int kBits>
void quantized_matmul(const QuantizedMatmulArgs& a) {
  switch (a.x->tokens) {
    case 0:
      return;
    case 1:
      return quantized_rows<F, I, Q, kBits, 1>(a);
    case 2:
      return quantized_rows<F, I, Q, kBits, 2>(a);
    case 3:
      return quantized_rows<F, I, Q, kBits, 3>(a);
    case 4:
      return quantized_rows<F, I, Q, kBits, 4>(a);
    default:
      return quantized_panels<F, I, Q, kBits>(a);
  }
}

template <class Fn>
inline void with_bits(int bits, Fn&& fn) {
  switch (bits) {
    case 2:
      return fn.template operator()<2>();
    case 3:
      return fn.template operator()<3>();
    case 4:
      return fn.template operator()<4>();
    case 5:
      return fn.template operator()<5>();
    case 6:
      return fn.template operator()<6>();
    case 8:
      return fn.template operator()<8>();
  }
}

template <class F, class I, class Q>
void quantized_matmul(const QuantizedMatmulArgs& a) {
  with_bits(a.weight->bits, [&]<int kBits>() { quantized_matmul<F, I, Q, kBits>(a); });
}

template <class F, class Q>
void quantize(const QuantizeArgs& a) {
  with_bits(a.out->bits, [&]<int kBits>() { quantize_rows<F, Q, kBits>(a); });
}

}  // namespace lapidary::simd
