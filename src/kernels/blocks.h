// ggml's blocks of weights: what lies where in each, and the codes, scales and biases it stands
// for.
//
// Blocks are packed and start at any address. Every format is a type with
//   codes(block, out)             its codes, unsigned, in the order of the columns
//   scales(block, scales, biases) a scale and a bias per group, weight = scale * code + bias
// Formats of signed codes have them here with an offset that the bias takes back. All scales and
// biases are exact in f32, and so is the one rounding of their fused multiply-add what ggml's own
// decoder rounds to.
//
// Everything is in an unnamed namespace: each file that includes this has its own, compiled for its
// instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/float16.h"
#include "kernels/kernels.h"

namespace lapidary::blocks {
namespace {

[[gnu::always_inline]] inline float half_at(const uint8_t* p) {
  Float16 half;
  std::memcpy(&half.bits, p, sizeof half.bits);
  return to_float(half);
}

// 16 bytes of codes i (low half) and i + 16 (high half).
[[gnu::always_inline]] inline void nibbles_of_32(const uint8_t* p, uint8_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = p[i] & 15;
  for (int i = 0; i < 16; ++i) out[i + 16] = static_cast<uint8_t>(p[i] >> 4);
}
// 4 bytes with the fifth bit of 32 codes, the first code's the least significant.
[[gnu::always_inline]] inline void add_fifth_bits(const uint8_t* p, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>((p[i / 8] >> i % 8 & 1) << 4);
}

// f16 d, 32 codes of 4 bits; d (code - 8).
struct Q4_0 {
  static constexpr WeightFormat kFormat = WeightFormat::kQ4_0;
  static void codes(const uint8_t* block, uint8_t* out) { nibbles_of_32(block + 2, out); }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales[0] = half_at(block);
    biases[0] = -8 * scales[0];
  }
};

// f16 d, f16 m, 32 codes of 4 bits; d code + m.
struct Q4_1 {
  static constexpr WeightFormat kFormat = WeightFormat::kQ4_1;
  static void codes(const uint8_t* block, uint8_t* out) { nibbles_of_32(block + 4, out); }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales[0] = half_at(block);
    biases[0] = half_at(block + 2);
  }
};

// f16 d, the fifth bits, the other 4 of 32 codes; d (code - 16).
struct Q5_0 {
  static constexpr WeightFormat kFormat = WeightFormat::kQ5_0;
  static void codes(const uint8_t* block, uint8_t* out) {
    nibbles_of_32(block + 6, out);
    add_fifth_bits(block + 2, out);
  }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales[0] = half_at(block);
    biases[0] = -16 * scales[0];
  }
};

// f16 d, f16 m, the fifth bits, the other 4 of 32 codes; d code + m.
struct Q5_1 {
  static constexpr WeightFormat kFormat = WeightFormat::kQ5_1;
  static void codes(const uint8_t* block, uint8_t* out) {
    nibbles_of_32(block + 8, out);
    add_fifth_bits(block + 4, out);
  }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales[0] = half_at(block);
    biases[0] = half_at(block + 2);
  }
};

// f16 d, 32 codes of 8 bits, signed; d code.
struct Q8_0 {
  static constexpr WeightFormat kFormat = WeightFormat::kQ8_0;
  static void codes(const uint8_t* block, uint8_t* out) {
    for (int i = 0; i < 32; ++i) out[i] = block[2 + i] ^ 0x80;
  }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales[0] = half_at(block);
    biases[0] = -128 * scales[0];
  }
};

// 12 bytes with 8 scales and 8 minima of 6 bits: of the first four in 4 + 4 bytes, whose top 2 bits
// belong to the last four, the other bits of which are the last 4 bytes' halves.
[[gnu::always_inline]] inline void six_bits(const uint8_t* p, uint8_t* scales, uint8_t* minima) {
  for (int i = 0; i < 4; ++i) {
    scales[i] = p[i] & 63;
    minima[i] = p[i + 4] & 63;
    scales[i + 4] = static_cast<uint8_t>((p[i + 8] & 15) | (p[i] >> 6) << 4);
    minima[i + 4] = static_cast<uint8_t>(p[i + 8] >> 4 | (p[i + 4] >> 6) << 4);
  }
}
// f16 d, f16 dmin and the 12 bytes: group g has the scale d scales[g], the bias -dmin minima[g].
[[gnu::always_inline]] inline void scales_of_six_bits(const uint8_t* block, float* scales,
                                                      float* biases) {
  uint8_t codes[8], minima[8];
  six_bits(block + 4, codes, minima);
  const float d = half_at(block), dmin = half_at(block + 2);
  for (int g = 0; g < 8; ++g) {
    scales[g] = d * codes[g];
    biases[g] = -dmin * minima[g];
  }
}
template <class Block>
constexpr bool kSixBits =
    Block::kFormat == WeightFormat::kQ4_K || Block::kFormat == WeightFormat::kQ5_K;
// 128 bytes: for each 64 columns 32, with code i (low half) and i + 32 (high half).
[[gnu::always_inline]] inline void nibbles_of_256(const uint8_t* p, uint8_t* out) {
  for (int part = 0; part < 4; ++part, p += 32, out += 64) {
    for (int i = 0; i < 32; ++i) out[i] = p[i] & 15;
    for (int i = 0; i < 32; ++i) out[i + 32] = static_cast<uint8_t>(p[i] >> 4);
  }
}

// f16 d, f16 dmin, scales and minima, 256 codes of 4 bits.
struct Q4_K {
  static constexpr WeightFormat kFormat = WeightFormat::kQ4_K;
  static void codes(const uint8_t* block, uint8_t* out) { nibbles_of_256(block + 16, out); }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales_of_six_bits(block, scales, biases);
  }
};

// f16 d, f16 dmin, scales and minima, 32 bytes of which number i has the fifth bit of the i-th code
// of group g as its bit g, the other 4 bits as in Q4_K.
struct Q5_K {
  static constexpr WeightFormat kFormat = WeightFormat::kQ5_K;
  static void codes(const uint8_t* block, uint8_t* out) {
    nibbles_of_256(block + 48, out);
    for (int g = 0; g < 8; ++g)
      for (int i = 0; i < 32; ++i)
        out[32 * g + i] |= static_cast<uint8_t>((block[16 + i] >> g & 1) << 4);
  }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    scales_of_six_bits(block, scales, biases);
  }
};

// 128 bytes of low halves, 64 of high quarters, 16 scales as signed bytes, f16 d. For each 128
// columns, in runs of 32: byte i of the first 32 low bytes has code i of run 0 and run 2, of the
// next 32 of run 1 and run 3; byte i of the high ones has the upper 2 bits of all four.
// d scale (code - 32).
struct Q6_K {
  static constexpr WeightFormat kFormat = WeightFormat::kQ6_K;
  static void codes(const uint8_t* block, uint8_t* out) {
    for (int part = 0; part < 2; ++part)
      for (int run = 0; run < 4; ++run) {
        const uint8_t* low = block + 64 * part + 32 * (run % 2);
        const uint8_t* high = block + 128 + 32 * part;
        for (int i = 0; i < 32; ++i)
          out[128 * part + 32 * run + i] =
              static_cast<uint8_t>((low[i] >> 4 * (run / 2) & 15) | (high[i] >> 2 * run & 3) << 4);
      }
  }
  static void scales(const uint8_t* block, float* scales, float* biases) {
    const float d = half_at(block + 208);
    for (int g = 0; g < 16; ++g) {
      scales[g] = d * static_cast<float>(static_cast<int8_t>(block[192 + g]));
      biases[g] = -32 * scales[g];
    }
  }
};

// The sizes that code depends on, of a format's type.
template <class Block>
constexpr const BlockFormat& kSizes = block_format(Block::kFormat);
constexpr int64_t kMostCols = 256;   // of a block
constexpr int64_t kMostGroups = 16;  // of a block

// Calls fn with the type of a format of blocks.
template <class Fn>
inline void with_block(WeightFormat format, Fn&& fn) {
  switch (format) {
    case WeightFormat::kQ4_0:
      return fn.template operator()<Q4_0>();
    case WeightFormat::kQ4_1:
      return fn.template operator()<Q4_1>();
    case WeightFormat::kQ5_0:
      return fn.template operator()<Q5_0>();
    case WeightFormat::kQ5_1:
      return fn.template operator()<Q5_1>();
    case WeightFormat::kQ8_0:
      return fn.template operator()<Q8_0>();
    case WeightFormat::kQ4_K:
      return fn.template operator()<Q4_K>();
    case WeightFormat::kQ5_K:
      return fn.template operator()<Q5_K>();
    case WeightFormat::kQ6_K:
      return fn.template operator()<Q6_K>();
    case WeightFormat::kDense:
    case WeightFormat::kAffine:
      return;
  }
}

}  // namespace
}  // namespace lapidary::blocks
