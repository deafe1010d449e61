// Panels of quantized.h through a unit that multiplies tiles. A tile is up to 16 rows of 64 bytes;
// a packed unit of weights is one as it lies in scratch (16 quads x 16 rows of the matrix), and so
// are 16 tokens' codes of a unit. A product is then the dots of one group for 16 rows x 16 tokens.
//
// `Tiles` is what an instruction set does with tiles; x86/amx.h is the hardware, TileModel below
// the same in plain C++, so that packing and indexing are tested everywhere.
//
// | vocabulary              | meaning                                                          |
// |-------------------------|------------------------------------------------------------------|
// | configure(), release()  | around every use, on the thread that uses them                   |
// | zero()                  | the sums, 16 x 16 of 32 bits, are 0                              |
// | load_sums(p)            | the sums from [16][16] int32                                     |
// | load_codes<n>(p)        | 16 rows of 4 n signed bytes, kQuantBlock apart                   |
// | load_weights<n>(p)      | n quads x 16 rows of 4 unsigned bytes                            |
// | multiply<n>()           | sums[i, j] += 4 n codes of token i times weights of row j        |
// | store_sums(p)           | the sums to [16][16] int32                                       |
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/simd/quantized.h"

namespace lapidary::simd {

template <class Base, class Tiles>
struct TileQ : Base {
  static constexpr int kVectors = 1;
  static constexpr int kTokens = 16;

  static void begin() { Tiles::configure(); }
  static void end() { Tiles::release(); }

  // dots: [kTokens] vectors of 16 sums, one after another in memory.
  template <int kBits, int, int kCount, class I>
  [[gnu::always_inline]] static void dot_quads(const uint8_t* unit, int64_t apart, int count,
                                               const int8_t* codes, I (*dots)[kCount], bool add) {
    if (kCount != kTokens || count < 8) {  // a tile of so few quads is not worth its making
      Base::template dot_quads<kBits, 1, kCount>(unit, apart, count, codes, dots, add);
    } else {
      if (add)
        Tiles::load_sums(dots);
      else
        Tiles::zero();
      if (count == 16)
        product<16>(unit, codes);
      else
        product<8>(unit, codes);
      Tiles::store_sums(dots);
    }
  }

 private:
  template <int kQuads>
  [[gnu::always_inline]] static void product(const uint8_t* unit, const int8_t* codes) {
    Tiles::template load_codes<kQuads>(codes);
    Tiles::template load_weights<kQuads>(unit);
    Tiles::template multiply<kQuads>();
  }
};

// The definition of the vocabulary. Not for speed, and not for two threads at once.
struct TileModel {
  static inline int32_t sums[16][16];
  static inline int8_t codes[16][64];
  static inline uint8_t weights[16][64];
  static inline bool configured = false;

  static void configure() { configured = true; }
  static void release() { configured = false; }
  static void zero() { std::memset(sums, 0, sizeof sums); }
  static void load_sums(const void* p) { std::memcpy(sums, p, sizeof sums); }
  template <int n>
  static void load_codes(const int8_t* p) {
    for (int i = 0; i < 16; ++i) std::memcpy(codes[i], p + i * kQuantBlock, 4 * n);
  }
  template <int n>
  static void load_weights(const uint8_t* p) {
    std::memcpy(weights, p, 64 * n);
  }
  template <int n>
  static void multiply() {
    if (!configured) return;
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j)
        for (int k = 0; k < 4 * n; ++k)
          sums[i][j] += int32_t{codes[i][k]} * weights[k / 4][4 * j + k % 4];
  }
  static void store_sums(void* p) { std::memcpy(p, sums, sizeof sums); }
};

}  // namespace lapidary::simd
