// Products of operands rounded to bf16: what training spends its time in where the hardware has
// them. The layout of packed operands is kernels.h's.
//
// gemm_bf16() goes through blocks of kBf16Panel x kBf16Panel sums by a `Unit`: TileUnit below, or
// x86/avx512_bf16.cc.
//
// | vocabulary                            | meaning                                            |
// |---------------------------------------|----------------------------------------------------|
// | configure(), release()                | around every use, on the thread that uses it       |
// | block(a, b, depth, c, stride, add)    | a block's product, `depth` whole steps, to rows of |
// |                                       | c that are `stride` floats apart, or added there   |
// | part(..., rows, cols)                 | the same of the first rows and columns at least    |
//
// `Tiles` holds 2 x 2 tiles of sums, kBf16Panel x kBf16Panel; x86/amx.h is the hardware,
// Bf16TileModel below the same in plain C++, so that packing and indexing are tested everywhere.
//
// | vocabulary              | meaning                                                          |
// |-------------------------|------------------------------------------------------------------|
// | configure(), release()  | around every use, on the thread that uses them                   |
// | zero()                  | the sums are 0                                                   |
// | load(c, stride)         | the sums from rows `stride` floats apart                         |
// | multiply(a, b)          | sums[i, j] += a step of row i times that of column j             |
// | store(c, stride)        | the sums to rows `stride` floats apart                           |
//
// `Packer` rounds and packs a tile; x86/avx512_bf16.h has it.
//
// | vocabulary                                 | meaning                                       |
// |--------------------------------------------|-----------------------------------------------|
// | along_k<operand>(p, stride, out)           | 16 rows (or columns), values of k side by     |
// |                                            | side, to a tile                               |
// | across_k<operand>(p, k_stride, out)        | 32 k, values of 16 rows (columns) side by     |
// |                                            | side, to a tile                               |
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/kernels.h"

namespace lapidary::simd {

template <class Tiles>
struct TileUnit {
  static void configure() { Tiles::configure(); }
  static void release() { Tiles::release(); }
  static void block(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                    bool add) {
    if (add)
      Tiles::load(c, stride);
    else
      Tiles::zero();
    for (int64_t k = 0; k < depth; k += kBf16Step)
      Tiles::multiply(a + k * kBf16Panel, b + k * kBf16Panel);
    Tiles::store(c, stride);
  }
  static void part(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                   bool add, int64_t, int64_t) {
    block(a, b, depth, c, stride, add);
  }
};

// A block at the edge, by way of a whole one.
template <class Unit>
void gemm_bf16_edge(const BFloat16* a, const BFloat16* b, int64_t depth, float* c, int64_t stride,
                    bool add, int64_t rows, int64_t cols) {
  alignas(64) float block[kBf16Panel * kBf16Panel] = {};
  for (int64_t r = 0; add && r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) block[r * kBf16Panel + j] = c[r * stride + j];
  Unit::part(a, b, depth, block, kBf16Panel, add, rows, cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) c[r * stride + j] = block[r * kBf16Panel + j];
}

template <class Unit>
void gemm_bf16(const Bf16GemmArgs& g) {
  const int64_t depth = bf16_depth(g.depth);
  Unit::configure();
  for (int64_t j = 0; j < g.cols; j += kBf16Panel)
    for (int64_t i = 0; i < g.rows; i += kBf16Panel) {
      const BFloat16* a = g.a + i * depth;
      const BFloat16* b = g.b + j * depth;
      float* c = g.c + i * g.stride + j;
      const int64_t rows = g.rows - i < kBf16Panel ? g.rows - i : kBf16Panel;
      const int64_t cols = g.cols - j < kBf16Panel ? g.cols - j : kBf16Panel;
      if (rows == kBf16Panel && cols == kBf16Panel)
        Unit::block(a, b, depth, c, g.stride, g.add);
      else
        gemm_bf16_edge<Unit>(a, b, depth, c, g.stride, g.add, rows, cols);
    }
  Unit::release();
}

// The tile of rows (or columns) from `i` on, at k from `k` on.
template <class Packer, Bf16Operand kOperand>
void pack_bf16_tile(const Bf16PackArgs& p, int64_t i, int64_t k, BFloat16* out) {
  const float* from = p.data + i * p.stride + k * p.k_stride;
  const int64_t count = p.count - i, depth = p.depth - k;
  const bool whole = count >= kBf16Tile && depth >= kBf16Step;
  if (whole && p.k_stride == 1) {
    Packer::template along_k<kOperand>(from, p.stride, out);
  } else if (whole && p.stride == 1) {
    Packer::template across_k<kOperand>(from, p.k_stride, out);
  } else {
    alignas(64) float tile[kBf16TileSize] = {};
    for (int64_t r = 0; r < kBf16Tile && r < count; ++r)
      for (int64_t d = 0; d < kBf16Step && d < depth; ++d)
        tile[r * kBf16Step + d] = from[r * p.stride + d * p.k_stride];
    Packer::template along_k<kOperand>(tile, kBf16Step, out);
  }
}

template <class Packer, Bf16Operand kOperand>
void pack_bf16_panels(const Bf16PackArgs& p) {
  const int64_t depth = bf16_depth(p.depth);
  for (int64_t panel = p.first; panel < p.last; ++panel)
    for (int64_t k = 0; k < depth; k += kBf16Step)
      for (int64_t half = 0; half < kBf16Panel; half += kBf16Tile)
        pack_bf16_tile<Packer, kOperand>(
            p, panel * kBf16Panel + half, k,
            p.out + panel * p.panel + bf16_position(kOperand, half, k));
}

template <class Packer>
void pack_bf16(const Bf16PackArgs& p) {
  if (p.operand == Bf16Operand::kRows)
    pack_bf16_panels<Packer, Bf16Operand::kRows>(p);
  else
    pack_bf16_panels<Packer, Bf16Operand::kCols>(p);
}

// What the hardware takes a subnormal number for, and makes of one.
static inline float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

// The definition of the vocabulary, in the order of Intel's manual for TDPBF16PS: the products of
// even and of odd k are a chain of fused multiply-adds each, whose sum is added to c; subnormal
// numbers count as 0, and become 0. Not for speed.
struct Bf16TileModel {
  static inline thread_local float sums[kBf16Panel][kBf16Panel];
  static inline thread_local bool configured = false;

  static void configure() { configured = true; }
  static void release() { configured = false; }
  static void zero() { std::memset(sums, 0, sizeof sums); }
  static void load(const float* c, int64_t stride) {
    for (int64_t i = 0; i < kBf16Panel; ++i) std::memcpy(sums[i], c + i * stride, sizeof sums[i]);
  }
  static void multiply(const BFloat16* a, const BFloat16* b) {
    if (!configured) return;
    for (int64_t i = 0; i < kBf16Panel; ++i)
      for (int64_t j = 0; j < kBf16Panel; ++j) {
        float chains[2] = {};
        for (int64_t k = 0; k < kBf16Step; ++k) {
          const float x = to_float(a[bf16_position(Bf16Operand::kRows, i, k)]);
          const float y = to_float(b[bf16_position(Bf16Operand::kCols, j, k)]);
          chains[k % 2] = flushed(std::fma(flushed(x), flushed(y), chains[k % 2]));
        }
        sums[i][j] = flushed(flushed(sums[i][j]) + flushed(chains[0] + chains[1]));
      }
  }
  static void store(float* c, int64_t stride) {
    for (int64_t i = 0; i < kBf16Panel; ++i) std::memcpy(c + i * stride, sums[i], sizeof sums[i]);
  }
};

}  // namespace lapidary::simd
