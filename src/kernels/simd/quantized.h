// Products of quantised weights with activations rounded to 8 bits (QuantizedRows), over F, a
// vector of 16 floats, I, one of 16 32-bit integers, and Q, what an instruction set does with bytes
// (README.md). The dots of groups are whole numbers, so only the float chain below has an order,
// and it is the same for both ways:
//   rows    few tokens: 16 rows of weights, far from each other so that the memory system follows
//           16 streams, are unpacked in registers and used at once
//   panels  many tokens: a block of kPanel rows is packed once into scratch, transposed, so that
//           one instruction serves 16 rows, and then multiplied with every token
// What they need to know of a format is in the class of a tile of 16 rows: AffineTile, or BlockTile
// for the blocks of ggml.
#pragma once

#include <type_traits>

#include "base/float16.h"
#include "kernels/blocks.h"
#include "kernels/kernels.h"
#include "kernels/simd/elementwise.h"

namespace lapidary::simd {

constexpr int64_t kPanel = 64;                          // rows packed together
constexpr int64_t kUnitBytes = 16 * kQuantUnit;         // a packed unit of 16 rows
constexpr int64_t kPackedVector = 16 * kQuantBlock;     // of 16 rows of a block
constexpr int64_t kPackedBytes = kPanel * kQuantBlock;  // of a panel's block
constexpr int kRowTokens = 4;                           // that the first way takes at most

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
    constexpr bool kInOrder = unit_position(kBits, kQuantUnit, 1) == 1;
    if (!kInOrder && group < kQuantUnit)
      for (int64_t i = 0; i < kQuantUnit; ++i)
        codes[unit + unit_position(kBits, group, i)] = natural[i];
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

// What dots of a block's groups become floats by, for 16 rows: fold() is for one token
//   y + step * sum over groups of (scale * dot + bias * sum)
// dots: [groups, stride]; sums: [groups].
struct FloatScales {
  float* scales;  // [groups, 16]
  float* biases;  // [groups, 16]

  template <class F, class I>
  [[gnu::always_inline]] F fold(F y, const I* dots, int64_t stride, int64_t groups,
                                const float* sums, float step) const {
    F s = F::zero();
    for (int64_t g = 0; g < groups; ++g) s = add(s, g, dots[g * stride], sums[g]);
    return fma(F::broadcast(step), s, y);
  }
  template <class F, class I>
  [[gnu::always_inline]] F add(F s, int64_t g, I dot, float sum) const {
    s = fma(F::load(scales + g * 16), F::from(dot), s);
    return fma(F::load(biases + g * 16), F::broadcast(sum), s);
  }
};

// Of Q4_K and Q5_K, whose scales are d and whose biases -dmin times whole numbers: sums over the 8
// groups are sums of whole numbers. Below 2^24 floats hold them exactly, which two groups' are
// (2 x 63 x 32 x 31 x 127); the sum of Q4_K's four is too, so that all eight are rounded once.
struct SixBitScales {
  float* codes;    // [8, 16]
  float* minima;   // [8, 16]
  float* factors;  // d, then -dmin, of each row

  template <class F, class I>
  [[gnu::always_inline]] F fold(F y, const I* dots, int64_t stride, int64_t, const float* sums,
                                float step) const {
    const auto two = [&](int64_t g) {
      return fma(F::load(codes + (g + 1) * 16), F::from(dots[(g + 1) * stride]),
                 F::load(codes + g * 16) * F::from(dots[g * stride]));
    };
    F low = F::zero();
    for (int64_t g = 0; g < 8; ++g) low = fma(F::load(minima + g * 16), F::broadcast(sums[g]), low);
    return fold((two(0) + two(2)) + (two(4) + two(6)), low, F::load(factors), F::load(factors + 16),
                step, y);
  }
  template <class F>
  [[gnu::always_inline]] static F fold(F dots, F low, F d, F minus_dmin, float step, F y) {
    return fma(F::broadcast(step), fma(minus_dmin, low, d * dots), y);
  }
};

// The activation codes of few tokens. For groups of less than a unit, copies of them, arranged as
// for groups of 64, each with all but one group of every unit zero: the dot of a unit with such a
// copy is that of one group.
struct RowCodes {
  const int8_t* whole;  // as they are
  const int8_t* codes[4];
};
static inline RowCodes split_groups(const QuantizedRows& x, int8_t* scratch) {
  if (x.group >= kQuantUnit) return {x.codes, {x.codes}};
  const int64_t bytes = x.blocks() * x.tokens * kQuantBlock, copies = kQuantUnit / x.group;
  RowCodes split{x.codes, {}};
  for (int64_t copy = 0; copy < copies; ++copy) split.codes[copy] = scratch + copy * bytes;
  for (int64_t index = 0; index < kQuantUnit; ++index) {
    const int64_t from = unit_position(x.bits, x.group, index);
    const int64_t to = unit_position(x.bits, 64, index);
    for (int64_t copy = 0; copy < copies; ++copy)
      for (int64_t unit = 0; unit < bytes; unit += kQuantUnit)
        scratch[copy * bytes + unit + to] = copy == index / x.group ? x.codes[unit + from] : 0;
  }
  return split;
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
  if (group < kQuantUnit) {
    const int64_t copies = kQuantUnit / group;
    I parts[4][kTokens][kQuantGroups];
    for (int64_t copy = 0; copy < copies; ++copy) units_of(copy, parts[copy]);
    for (int t = 0; t < kTokens; ++t)
      for (int64_t g = 0; g < copies * units; ++g) dots[t][g] = parts[g % copies][t][g / copies];
    return;
  }
  units_of(0, dots);
  if (group == 128)
    for (int t = 0; t < kTokens; ++t)
      for (int64_t g = 0; g < units / 2; ++g) dots[t][g] = dots[t][2 * g] + dots[t][2 * g + 1];
}

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

// ---- tiles: 16 rows of weights, which need not be neighbours, block after block
//
// | member                        | meaning                                                     |
// |-------------------------------|-------------------------------------------------------------|
// | Tile(w, row, apart, scratch)  | of rows row[0 .. 15]; apart: which are no neighbours, but   |
// |                               | those of the next tile, one by one                          |
// | kBits                         | codes are below 2^kBits                                     |
// | kPackedBits                   | those that Q::pack_unit is called with                      |
// | kSplitCodes                   | dots() uses the copies of RowCodes                          |
// | scratch_floats(cols)          | that an object takes at most                                |
// | begin_block(b)                | what follows is of block b                                  |
// | Scales, scales()              | reads those of the block; what they lie in is the tile's    |
// | kFolds                        | it has add(x, cell, y), whole rows at once, in place of     |
// |                               | scales() and dots() where these are not asked for           |
// | dots<tokens>(units, x, cell,  | of the block's groups, [tokens][groups]; the codes of the   |
// |              dots)            | block's first token are `cell` further in those of x        |
// | pack(units, packed)           | the block's units, as Q::pack_unit packs them               |

constexpr int64_t affine_tile_floats(int64_t cols) {
  return 2 * 16 * (cols / 32);
}
template <class I, class Q, int kBits_>
class AffineTile {
 public:
  static constexpr int kBits = kBits_;
  static constexpr int kPackedBits = kBits;
  static constexpr bool kSplitCodes = true;
  static constexpr bool kFolds = false;
  using Scales = FloatScales;

  AffineTile(const WeightMatrix& w, const int64_t* row, bool apart, float* scratch)
      : group_(w.group), scales_(scratch), biases_(scratch + 16 * w.row_groups()) {
    for (int r = 0; r < 16; ++r)
      data_[r] = reinterpret_cast<const uint8_t*>(w.data) + row[r] * w.row_bytes();
    table_bytes_ = w.row_groups() * size_of(w.dtype);
    for (int r = 0; r < 16; ++r) {
      tables_[r] = w.scales + row[r] * table_bytes_;
      tables_[16 + r] = w.biases + row[r] * table_bytes_;
    }
    const int64_t blocks = (w.cols + kQuantBlock - 1) / kQuantBlock;
    block_tables_ = apart ? (32 + blocks - 1) / blocks : 0;
    gather(w, tables_, scales_);
    gather(w, tables_ + 16, biases_);
  }
  static int64_t scratch_floats(int64_t cols) { return affine_tile_floats(cols); }

  // Scales and biases of rows apart lie on 32 streams of a few bytes per tile, more than the
  // hardware foresees: each block asks for its share of those of the next tile, which all at once
  // would hold up the weights. A row's first line was its neighbour's last.
  void begin_block(int64_t b) {
    column_ = b * kQuantBlock;
    const int64_t wanted = (b + 1) * block_tables_, end = wanted < 32 ? wanted : 32;
    for (int64_t t = b * block_tables_; t < end; ++t)
      for (int64_t at = table_bytes_ - 1; at >= 0; at -= 64)
        __builtin_prefetch(tables_[t] + table_bytes_ + 64 + at);
  }
  Scales scales() const {
    const int64_t at = column_ / group_ * 16;
    return {scales_ + at, biases_ + at};
  }

  template <int kTokens>
  [[gnu::always_inline]] void dots(int64_t units, const RowCodes& x, int64_t cell,
                                   I (*dots)[kQuantGroups]) const {
    block_dots<I, Q, kBits, kTokens>(data_, units, column_ * kBits / 8, x, group_, cell, dots);
  }

  void pack(int64_t units, uint8_t* packed) const {
    constexpr QuadOrder kOrders[2] = {quad_order(kBits, 32), quad_order(kBits, 64)};
    for (int64_t u = 0; u < units; ++u)
      Q::template pack_unit<kBits>(data_, (column_ + u * kQuantUnit) * kBits / 8,
                                   kOrders[group_ == 32 ? 0 : 1], packed + u * kUnitBytes);
  }

 private:
  // Row r of scales (or biases), at data[r], to lane r as f32, [groups, 16].
  static void gather(const WeightMatrix& w, const std::byte* const* data, float* out) {
    const int64_t groups = w.row_groups();
    const auto several = [&]<int kGroups>() {
      for (int64_t g = 0; g < groups; g += kGroups) {
        const int64_t begin = g + kGroups <= groups ? g : groups - kGroups;  // the last may overlap
        Q::template transpose_scales<kGroups>(data, begin, w.dtype == DType::kBF16,
                                              out + begin * 16, 16);
      }
    };
    if (w.dtype != DType::kF32 && groups >= 8) return several.template operator()<8>();
    if (w.dtype != DType::kF32 && groups >= 4) return several.template operator()<4>();
    for (int64_t g = 0; g < groups; ++g)
      for (int r = 0; r < 16; ++r) out[g * 16 + r] = float_at(data[r], w.dtype, g);
  }

  const uint8_t* data_[16];
  const std::byte* tables_[32];  // the rows' scales, then their biases
  int64_t table_bytes_;          // of a row of them
  int64_t block_tables_;         // of tables_, whose next row a block asks for
  int group_;
  int64_t column_ = 0;
  float* scales_;
  float* biases_;
};

constexpr int64_t kBlockTileFloats = 2 * 16 * kQuantGroups + 16 * kQuantBlock / 4;
// What the tiles of blocks share: where the blocks lie, and how they are packed. Q makes the class
// one of the instruction set (README.md).
template <class Q, class Block>
class BlockRows {
 protected:
  static constexpr const BlockFormat& kSizes = block_format(Block::kFormat);
  static constexpr int64_t kBlocks = kQuantBlock / kSizes.cols;  // of the format in one of ours

 public:
  static constexpr int kBits = kSizes.bits;
  static constexpr int kPackedBits = 8;
  using Scales = std::conditional_t<blocks::kSixBits<Block>, SixBitScales, FloatScales>;

  BlockRows(const WeightMatrix& w, const int64_t* row, bool, float* scratch)
      : row_blocks_(w.cols / kSizes.cols),
        scales_(scratch),
        codes_(reinterpret_cast<uint8_t*>(scratch + 2 * 16 * kQuantGroups)) {
    for (int r = 0; r < 16; ++r)
      data_[r] = reinterpret_cast<const uint8_t*>(w.data) + row[r] * w.row_bytes();
  }
  static int64_t scratch_floats(int64_t) { return kBlockTileFloats; }

  void begin_block(int64_t b) {
    first_ = b * kBlocks;
    count_ = row_blocks_ - first_ < kBlocks ? row_blocks_ - first_ : kBlocks;
    for (int r = 0; r < 16; ++r) at_[r] = data_[r] + first_ * kSizes.bytes;
  }

  void pack(int64_t units, uint8_t* packed) const {
    constexpr QuadOrder kOrder = quad_order(8, kSizes.group);
    const uint8_t* rows[16];
    unpack(rows);
    for (int64_t u = 0; u < units; ++u)
      Q::template pack_unit<8>(rows, u * kQuantUnit, kOrder, packed + u * kUnitBytes);
  }

 protected:
  // Of the block's scales.
  Scales memory() const {
    if constexpr (blocks::kSixBits<Block>)
      return {scales_, scales_ + 8 * 16, scales_ + 2 * 8 * 16};
    else
      return {scales_, scales_ + 16 * kQuantGroups};
  }
  // The block's codes, a byte each, of all rows.
  void unpack(const uint8_t** rows) const {
    for (int r = 0; r < 16; ++r) {
      rows[r] = codes_ + r * kQuantBlock;
      for (int64_t i = 0; i < count_; ++i)
        Block::codes(at_[r] + i * kSizes.bytes, codes_ + r * kQuantBlock + i * kSizes.cols);
    }
  }

  const uint8_t* data_[16];
  const uint8_t* at_[16];  // the first of the format's blocks in the block
  int64_t row_blocks_;
  int64_t first_ = 0, count_ = 0;  // blocks of the format that make up the block
  float* scales_;                  // [2, kQuantGroups, 16]
  uint8_t* codes_;
};

template <class I, class Q, class Block>
class BlockTile : public BlockRows<Q, Block> {
  using Rows = BlockRows<Q, Block>;
  using Rows::kSizes, Rows::at_, Rows::count_, Rows::scales_;

 public:
  using Rows::Rows, typename Rows::Scales;
  static constexpr bool kSplitCodes = true;
  static constexpr bool kFolds = false;

  Scales scales() const {
    constexpr int64_t kGroups = kSizes.cols / kSizes.group;
    const Scales all = this->memory();
    for (int64_t i = 0; i < count_; ++i)
      for (int r = 0; r < 16; ++r) {
        const uint8_t* block = at_[r] + i * kSizes.bytes;
        const auto put = [&](float* to, const auto* values) {
          for (int64_t g = 0; g < kGroups; ++g)
            to[(i * kGroups + g) * 16 + r] = static_cast<float>(values[g]);
        };
        if constexpr (blocks::kSixBits<Block>) {
          uint8_t codes[8], minima[8];
          blocks::six_bits(block + 4, codes, minima);
          put(all.codes, codes);
          put(all.minima, minima);
          all.factors[r] = blocks::half_at(block);
          all.factors[16 + r] = -blocks::half_at(block + 2);
        } else {
          float scales[kGroups], biases[kGroups];
          Block::scales(block, scales, biases);
          put(all.scales, scales);
          put(all.biases, biases);
        }
      }
    return all;
  }

  template <int kTokens>
  [[gnu::always_inline]] void dots(int64_t units, const RowCodes& x, int64_t cell,
                                   I (*dots)[kQuantGroups]) const {
    const uint8_t* rows[16];
    this->unpack(rows);
    block_dots<I, Q, 8, kTokens>(rows, units, 0, x, kSizes.group, cell, dots);
  }
};

// ---- few tokens

template <class F, class I, class Tile, int kTokens>
void rows_tile(const QuantizedMatmulArgs& a, const int64_t* row, const RowCodes& codes,
               float* scratch) {
  const WeightMatrix& w = *a.weight;
  const QuantizedRows& x = *a.x;
  Tile tile(w, row, true, scratch);
  F y[kTokens];
  for (F& sum : y) sum = F::zero();
  const int64_t row_groups = w.row_groups(), block_groups = kQuantBlock / w.group;
  for (int64_t b = 0, g = 0; g < row_groups; ++b, g += block_groups) {
    const int64_t begin = b * kQuantBlock, cell = b * kTokens;
    const int64_t cols = w.cols - begin < kQuantBlock ? w.cols - begin : kQuantBlock;
    const int64_t groups = row_groups - g < block_groups ? row_groups - g : block_groups;
    tile.begin_block(b);
    if constexpr (Tile::kFolds) {
      tile.template add<kTokens>(x, cell, y);
    } else {
      I dots[kTokens][kQuantGroups];
      const typename Tile::Scales scales = tile.scales();
      tile.template dots<kTokens>(cols / kQuantUnit, codes, cell * kQuantBlock, dots);
      for (int t = 0; t < kTokens; ++t)
        y[t] = scales.fold(y[t], dots[t], 1, groups, x.sums + (cell + t) * kQuantGroups,
                           x.steps[cell + t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    float lanes[16];
    store(lanes, y[t]);
    for (int r = 0; r < 16; ++r) a.y[t * w.rows + row[r]] = lanes[r];
  }
}

// The rows that 16 lanes take, tile after tile. Lane r walks its own `tiles` rows, from the r-th of
// them around: lanes that stood at the same place a power of two apart would share the few places
// of one set of the cache. Rows past the end repeat the last; what comes of them is the same. (Its
// functions are inlined so that none is left behind for the linker: README.md.)
class LaneRows {
 public:
  [[gnu::always_inline]] LaneRows(int64_t first, int64_t last)
      : last_(last), tiles_((last - first + 15) / 16) {
    for (int64_t r = 0; r < 16; ++r) {
      next_[r] = first + r * tiles_ + r % tiles_;
      end_[r] = first + (r + 1) * tiles_;
    }
  }
  int64_t tiles() const { return tiles_; }
  [[gnu::always_inline]] void take(int64_t* row) {
    for (int r = 0; r < 16; ++r) {
      row[r] = next_[r] < last_ ? next_[r] : last_ - 1;
      next_[r] = next_[r] + 1 < end_[r] ? next_[r] + 1 : next_[r] + 1 - tiles_;
    }
  }

 private:
  int64_t last_, tiles_;
  int64_t next_[16], end_[16];
};

template <class F, class I, class Tile, int kTokens>
void quantized_rows(const QuantizedMatmulArgs& a) {
  if (a.first_row >= a.last_row) return;
  int8_t* copies = reinterpret_cast<int8_t*>(a.scratch + Tile::scratch_floats(a.weight->cols));
  const RowCodes codes = Tile::kSplitCodes ? split_groups(*a.x, copies) : RowCodes{a.x->codes, {}};
  LaneRows lanes(a.first_row, a.last_row);
  for (int64_t i = 0; i < lanes.tiles(); ++i) {
    int64_t rows[16];
    lanes.take(rows);
    rows_tile<F, I, Tile, kTokens>(a, rows, codes, a.scratch);
  }
}

// ---- many tokens

// Lines of memory to ask for ahead. A panel's pieces of rows are too many streams for the hardware
// to foresee, but whole panels one after another are a single one; and all its lines at once would
// hold up the loads of what is multiplied meanwhile. (Inlined: to GCC a function that only asks is
// one that does nothing, whose calls it leaves out.)
struct Lines {
  static constexpr int64_t kBytes = 64;
  const std::byte* data = nullptr;
  int64_t count = 0;

  [[gnu::always_inline]] Lines part(int64_t index, int64_t parts) const {
    const int64_t begin = count * index / parts;
    return {data + kBytes * begin, count * (index + 1) / parts - begin};
  }
  [[gnu::always_inline]] void ask() const {
    for (int64_t i = 0; i < count; ++i) __builtin_prefetch(data + kBytes * i);
  }
};

// What is read of the kPanel rows from `row` on.
struct PanelLines {
  Lines codes, scales, biases;

  [[gnu::always_inline]] PanelLines(const WeightMatrix& w, int64_t row)
      : codes(lines(w.data, row, w.row_bytes())) {
    if (!w.affine()) return;
    scales = lines(w.scales, row, w.row_groups() * size_of(w.dtype));
    biases = lines(w.biases, row, w.row_groups() * size_of(w.dtype));
  }

 private:
  [[gnu::always_inline]] static Lines lines(const std::byte* rows, int64_t row, int64_t bytes) {
    return {rows + row * bytes, kPanel * bytes / Lines::kBytes};
  }
};

// Dots of group g of a block for kVectors times 16 packed rows and kTokens tokens.
template <class I, class Q, int kBits, int kVectors, int kTokens>
[[gnu::always_inline]] inline void group_dots(const uint8_t* packed, int64_t g, int group,
                                              const int8_t* codes, I (*dots)[kTokens]) {
  const auto quads = [&](int64_t first, int count, bool add) {
    Q::template dot_quads<kBits, kVectors, kTokens>(packed + 64 * first, kPackedVector, count,
                                                    codes + 4 * first, dots, add);
  };
  const int64_t first = g * group / 4;
  if (group < 64) return quads(first, group / 4, false);
  quads(first, 16, false);
  if (group == 128) quads(first + 16, 16, true);
}

// One block of kVectors times 16 packed rows for tokens t ... t + kTokens - 1, added to y (or put
// there, when it is the first). `rows` are fewer at the end of a matrix; `next` is asked for
// meanwhile.
template <class F, class I, class Q, int kBits, int kVectors, int kTokens, class Scales>
[[gnu::noinline]] void panel_tile(const QuantizedMatmulArgs& a, int64_t b, int64_t t,
                                  const uint8_t* packed, const Scales* scales, int64_t n,
                                  int64_t rows, Lines next) {
  const QuantizedRows& x = *a.x;
  const int64_t begin = b * kQuantBlock, cell = b * x.tokens + t;
  const int64_t cols = x.cols - begin < kQuantBlock ? x.cols - begin : kQuantBlock;
  const int64_t groups = cols / x.group;
  const int8_t* codes = x.codes + cell * kQuantBlock;
  const float* sums = x.sums + cell * kQuantGroups;
  const auto finish = [&](int v, int i, auto&& add) {
    float* out = a.y + (t + i) * a.weight->rows + n + 16 * v;
    const int count = rows - 16 * v < 16 ? static_cast<int>(rows - 16 * v) : 16;
    const F before = b == 0 ? F::zero() : load_piece<F>(out, count);
    store_piece(out, add(before, x.steps[cell + i]), count);
  };
  if constexpr (std::is_same_v<Scales, FloatScales>) {  // group by group, in registers
    F s[kVectors][kTokens];
    const auto for_each_sum = [&](auto&& fn) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 16
        for (int i = 0; i < kTokens; ++i) fn(v, i);
      }
    };
    for_each_sum([&](int v, int i) { s[v][i] = F::zero(); });
    for (int64_t g = 0; g < groups; ++g) {
      next.part(g, groups).ask();
      I dots[kVectors][kTokens];
      group_dots<I, Q, kBits, kVectors, kTokens>(packed, g, x.group, codes, dots);
      for_each_sum([&](int v, int i) {
        s[v][i] = scales[v].add(s[v][i], g, dots[v][i], sums[i * kQuantGroups + g]);
      });
    }
    for_each_sum([&](int v, int i) {
      finish(v, i, [&](F y, float step) { return fma(F::broadcast(step), s[v][i], y); });
    });
  } else {
    next.ask();
    I dots[kQuantGroups][kVectors][kTokens];
    for (int64_t g = 0; g < groups; ++g)
      group_dots<I, Q, kBits, kVectors, kTokens>(packed, g, x.group, codes, dots[g]);
    for (int v = 0; v < kVectors; ++v)
      for (int i = 0; i < kTokens; ++i)
        finish(v, i, [&](F y, float step) {
          return scales[v].fold(y, &dots[0][v][i], kVectors * kTokens, groups,
                                sums + i * kQuantGroups, step);
        });
  }
}

template <class F, class I, class Q, class Tile>
void panel_block(const QuantizedMatmulArgs& a, int64_t b, const uint8_t* packed,
                 const typename Tile::Scales* scales, int64_t n, int64_t rows, Lines next) {
  // Packed codes are bytes, so that one function serves all codes of up to 4 bits, of any format.
  constexpr int kCodeBits = Q::kOffsetsBytes ? Tile::kPackedBits : Tile::kBits;
  constexpr int kBits = kCodeBits < 4 ? 4 : kCodeBits;
  // The first tiles, of up to two pieces of tokens, ask for what is next.
  const int64_t pieces = a.x->tokens > Q::kTokens ? 2 : 1;
  const int64_t asking = pieces * kPanel / (16 * Q::kVectors);
  int64_t done = 0;
  const auto tile = [&]<int kTokens>(int64_t t) {
    int64_t r = 0;
    const auto vectors = [&]<int kVectors>() {
      const Lines share = done < asking ? next.part(done++, asking) : Lines{};
      panel_tile<F, I, Q, kBits, kVectors, kTokens>(a, b, t, packed + r / 16 * kPackedVector,
                                                    scales + r / 16, n + r, rows - r, share);
      r += 16 * kVectors;
    };
    while (rows - r > 16 * (Q::kVectors - 1)) vectors.template operator()<Q::kVectors>();
    if (r < rows) vectors.template operator()<1>();
  };
  int64_t t = 0;
  for (; t + Q::kTokens <= a.x->tokens; t += Q::kTokens) tile.template operator()<Q::kTokens>(t);
  for (; t + 4 <= a.x->tokens; t += 4) tile.template operator()<4>(t);
  switch (a.x->tokens - t) {
    case 3:
      return tile.template operator()<3>(t);
    case 2:
      return tile.template operator()<2>(t);
    case 1:
      return tile.template operator()<1>(t);
  }
}

template <class F, class I, class Q, class Tile>
void quantized_panels(const QuantizedMatmulArgs& a) {
  const WeightMatrix& w = *a.weight;
  const int64_t floats = Tile::scratch_floats(w.cols);
  uint8_t* packed = reinterpret_cast<uint8_t*>(a.scratch + kPanel / 16 * floats);
  Q::begin();
  const PanelLines first_panel(w, a.first_row);
  first_panel.scales.ask();
  first_panel.biases.ask();
  first_panel.codes.ask();
  for (int64_t n = a.first_row; n < a.last_row; n += kPanel) {
    const int64_t rows = a.last_row - n < kPanel ? a.last_row - n : kPanel;
    const auto make = [&](int64_t i) {
      int64_t row[16];  // those past the end repeat the last
      for (int64_t r = 0; r < 16; ++r) {
        const int64_t wanted = 16 * i + r;
        row[r] = n + (wanted < rows ? wanted : rows - 1);
      }
      return Tile(w, row, false, a.scratch + i * floats);
    };
    const Tile first = make(0);  // also where a short panel has none: making one gathers scales
    const auto made = [&](int64_t i) { return 16 * i < rows ? make(i) : first; };
    Tile tiles[kPanel / 16] = {first, made(1), made(2), made(3)};
    const PanelLines next(w, n + kPanel);
    const int64_t blocks = a.x->blocks();
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = b * kQuantBlock;
      const int64_t cols = w.cols - begin < kQuantBlock ? w.cols - begin : kQuantBlock;
      const bool more = n + kPanel < a.last_row;
      if (more) next.scales.part(b, blocks).ask();
      if (more) next.biases.part(b, blocks).ask();
      typename Tile::Scales scales[kPanel / 16];
      for (int64_t i = 0; 16 * i < rows; ++i) {
        tiles[i].begin_block(b);
        scales[i] = tiles[i].scales();
        tiles[i].pack(cols / kQuantUnit, packed + i * kPackedVector);
      }
      panel_block<F, I, Q, Tile>(a, b, packed, scales, n, rows,
                                 more ? next.codes.part(b, blocks) : Lines{});
    }
  }
  Q::end();
}

// ---- the two entries of the table

template <class F, class I, class Q, class Tile>
void quantized_matmul(const QuantizedMatmulArgs& a) {
  switch (a.x->tokens) {
    case 0:
      return;
    case 1:
      return quantized_rows<F, I, Tile, 1>(a);
    case 2:
      return quantized_rows<F, I, Tile, 2>(a);
    case 3:
      return quantized_rows<F, I, Tile, 3>(a);
    case 4:
      return quantized_rows<F, I, Tile, 4>(a);
    default:
      return quantized_panels<F, I, Q, Tile>(a);
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
  if (a.weight->blocks())
    blocks::with_block(a.weight->format, [&]<class Block>() {
      quantized_matmul<F, I, Q, BlockTile<I, Q, Block>>(a);
    });
  else
    with_bits(a.weight->bits,
              [&]<int kBits>() { quantized_matmul<F, I, Q, AffineTile<I, Q, kBits>>(a); });
}

template <class F, class Q>
void quantize(const QuantizeArgs& a) {
  with_bits(a.out->bits, [&]<int kBits>() { quantize_rows<F, Q, kBits>(a); });
}

}  // namespace lapidary::simd
