// Bytes on NEON with dot products, for simd/quantized.h: sdot multiplies quads of signed bytes and
// adds them to 32-bit sums. Codes of up to 6 bits are signed bytes as they are; one of 8 bits goes
// in as code - 128, and the sums start at 128 times the sum of the activations.
#pragma once

#include <arm_neon.h>
#include <cstring>

#include "kernels/arm/load_codes.h"
#include "kernels/simd/codes.h"
#include "kernels/simd/quantized.h"

namespace lapidary::neon {
namespace {

struct I {
  int32x4_t a, b, c, d;  // lanes 0-3, 4-7, 8-11, 12-15
};
inline I operator+(I i, I j) {
  return {vaddq_s32(i.a, j.a), vaddq_s32(i.b, j.b), vaddq_s32(i.c, j.c), vaddq_s32(i.d, j.d)};
}

inline float32x4_t from_bf16(uint16x4_t bits) {
  return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}
inline float32x4_t from_f16(uint16x4_t bits) {
  return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}

// 4 rows of 4 32-bit values, in place.
inline void transpose_4x4(int32x4_t* v) {
  const int32x4_t a = vzip1q_s32(v[0], v[2]), b = vzip2q_s32(v[0], v[2]);
  const int32x4_t c = vzip1q_s32(v[1], v[3]), d = vzip2q_s32(v[1], v[3]);
  v[0] = vzip1q_s32(a, c);
  v[1] = vzip2q_s32(a, c);
  v[2] = vzip1q_s32(b, d);
  v[3] = vzip2q_s32(b, d);
}

// The codes of a unit, at their unit_position(); those of 8 bits less 128.
struct UnitCodes {
  int8x16_t part[4];
};

struct Q {
  static constexpr int kVectors = 1;
  static constexpr int kTokens = 4;  // x 16 rows: 16 sums, 4 codes, 4 activations

  static constexpr bool kOffsetsBytes = true;  // to signed ones, 128 less

  static void begin() {}
  static void end() {}

  template <class F>
  static void store_codes(int8_t* p, F x) {
    const auto eight = [](float32x4_t low, float32x4_t high) {
      return vqmovn_s16(
          vcombine_s16(vqmovn_s32(vcvtq_s32_f32(low)), vqmovn_s32(vcvtq_s32_f32(high))));
    };
    vst1q_s8(p, vcombine_s8(eight(x.a, x.b), eight(x.c, x.d)));
  }

  template <int kBits>
  static void arrange(const int8_t* natural, int8_t* out) {
    UnitCodes x;
    if constexpr (kBits == 2) {
      const int8x16x4_t places = vld4q_s8(natural);
      for (int i = 0; i < 4; ++i) x.part[i] = places.val[i];
    } else if constexpr (kBits == 4) {
      const int8x16x2_t low = vld2q_s8(natural), high = vld2q_s8(natural + 32);
      x = {{low.val[0], high.val[0], low.val[1], high.val[1]}};
    } else {
      x = load(natural);
    }
    for (int i = 0; i < 4; ++i) vst1q_s8(out + 16 * i, x.part[i]);
  }

  template <int kGroups>
  static void transpose_scales(const std::byte* const* rows, int64_t g, bool bf16, float* out,
                               int64_t stride) {
    for (int r = 0; r < 16; r += 4)
      for (int half = 0; half < kGroups; half += 4) {
        int32x4_t v[4];
        for (int i = 0; i < 4; ++i) {
          uint16x4_t bits;
          std::memcpy(&bits, rows[r + i] + 2 * (g + half), sizeof bits);
          v[i] = vreinterpretq_s32_f32(bf16 ? from_bf16(bits) : from_f16(bits));
        }
        transpose_4x4(v);
        for (int i = 0; i < 4; ++i)
          vst1q_f32(out + (half + i) * stride + r, vreinterpretq_f32_s32(v[i]));
      }
  }

  template <int kBits, int kTokens>
  [[gnu::always_inline]] static void dot_units(const uint8_t* const* rows, int64_t offset,
                                               int64_t units, const int8_t* codes,
                                               I (*out)[kQuantGroups]) {
    for (int64_t u = 0; u < units; ++u) {
      UnitCodes x[kTokens];
      int32x4_t start[kTokens];
      for (int t = 0; t < kTokens; ++t) {
        x[t] = load(codes + t * kQuantBlock + u * kQuantUnit);
        start[t] = kBits == 8 ? correction(x[t]) : vdupq_n_s32(0);
      }
      const auto four_rows = [&](int first, int32x4_t I::*lanes) {
        int32x4_t sums[kTokens][4];
        for (int r = 0; r < 4; ++r) {
          const UnitCodes w = unpack<kBits>(rows[first + r] + offset + u * kQuantUnit * kBits / 8);
          for (int t = 0; t < kTokens; ++t) sums[t][r] = dot(start[t], w, x[t]);
        }
        for (int t = 0; t < kTokens; ++t) out[t][u].*lanes = sum_of_each(sums[t]);
      };
      four_rows(0, &I::a);
      four_rows(4, &I::b);
      four_rows(8, &I::c);
      four_rows(12, &I::d);
    }
  }

  template <int kBits>
  static void pack_unit(const uint8_t* const* rows, int64_t offset, const simd::QuadOrder& order,
                        uint8_t* out) {
    for (int first = 0; first < 16; first += 4) {
      UnitCodes w[4];
      for (int r = 0; r < 4; ++r) w[r] = unpack<kBits>(rows[first + r] + offset);
      for (int part = 0; part < 4; ++part) {
        int32x4_t quads[4];
        for (int r = 0; r < 4; ++r) quads[r] = vreinterpretq_s32_s8(w[r].part[part]);
        transpose_4x4(quads);
        for (int q = 0; q < 4; ++q)
          vst1q_u8(out + 64 * order.place[4 * part + q] + 4 * first,
                   vreinterpretq_u8_s32(quads[q]));
      }
    }
  }

  template <int kBits, int, int kTokens>
  [[gnu::always_inline]] static void dot_quads(const uint8_t* unit, int64_t, int count,
                                               const int8_t* codes, I (*of_vectors)[kTokens],
                                               bool add) {
    I* dots = of_vectors[0];
    I sums[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int32x4_t start =
          vdupq_n_s32(kBits == 8 ? correction(codes + t * kQuantBlock, 4 * count) : 0);
      sums[t] = {start, start, start, start};
      if (add) sums[t] = sums[t] + dots[t];
    }
    for (int quad = 0; quad < count; quad += 4) {
      int8x16_t x[kTokens];  // 4 quads of each token
      for (int t = 0; t < kTokens; ++t) x[t] = vld1q_s8(codes + t * kQuantBlock + 4 * quad);
      const int8_t* w = reinterpret_cast<const int8_t*>(unit) + 64 * quad;
      add_quad<0>(w, x, sums);
      add_quad<1>(w, x, sums);
      add_quad<2>(w, x, sums);
      add_quad<3>(w, x, sums);
    }
    for (int t = 0; t < kTokens; ++t) dots[t] = sums[t];
  }

 private:
  static UnitCodes load(const int8_t* p) {
    return {{vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)}};
  }

  // 16 codes of 3, 5 or 6 bits: each 16-bit lane takes the two bytes around its code; a product by
  // a power of two moves the code to the top.
  template <int kBits>
  static uint8x16_t spread(const uint8_t* p) {
    static constexpr simd::WordTable kTable = simd::make_word_table<kBits>();
    const uint8x16_t bytes = load_codes<kBits>(p);
    const auto words = [&](int i) {
      const uint8x16_t word = vqtbl1q_u8(bytes, vld1q_u8(kTable.shuffle[i]));
      return vreinterpretq_u8_u16(
          vmulq_u16(vreinterpretq_u16_u8(word), vld1q_u16(kTable.factor[i])));
    };
    return vshrq_n_u8(vuzp2q_u8(words(0), words(1)), 8 - kBits);
  }

  template <int kBits>
  [[gnu::always_inline]] static UnitCodes unpack(const uint8_t* p) {
    const auto parts = [](auto&& part) {
      return UnitCodes{{vreinterpretq_s8_u8(part(0)), vreinterpretq_s8_u8(part(1)),
                        vreinterpretq_s8_u8(part(2)), vreinterpretq_s8_u8(part(3))}};
    };
    if constexpr (kBits == 2) {
      const uint8x16_t bytes = vld1q_u8(p), mask = vdupq_n_u8(3);
      const auto shifted = [&](int i) { return vshlq_u8(bytes, vdupq_n_s8(int8_t(-2 * i))); };
      return parts([&](int i) { return vandq_u8(shifted(i), mask); });
    } else if constexpr (kBits == 4) {
      const uint8x16_t bytes[2] = {vld1q_u8(p), vld1q_u8(p + 16)}, mask = vdupq_n_u8(15);
      return parts(
          [&](int i) { return i < 2 ? vandq_u8(bytes[i], mask) : vshrq_n_u8(bytes[i - 2], 4); });
    } else if constexpr (kBits == 8) {
      return parts([&](int i) { return veorq_u8(vld1q_u8(p + 16 * i), vdupq_n_u8(128)); });
    } else {
      return parts([&](int i) { return spread<kBits>(p + 2 * kBits * i); });
    }
  }

  // start + 4 sums that together are the dot product of a unit.
  [[gnu::always_inline]] static int32x4_t dot(int32x4_t start, const UnitCodes& w,
                                              const UnitCodes& x) {
    for (int i = 0; i < 4; ++i) start = vdotq_s32(start, w.part[i], x.part[i]);
    return start;
  }

  // What a dot with codes less 128 lacks: 128 times the activations of a unit, as dot() sums them.
  static int32x4_t correction(const UnitCodes& x) {
    const int8x16_t all = vdupq_n_s8(-128);
    return vnegq_s32(dot(vdupq_n_s32(0), {{all, all, all, all}}, x));
  }
  // The same of `count` activations, in one number.
  static int32_t correction(const int8_t* x, int count) {
    int32x4_t sums = vdupq_n_s32(0);
    for (int i = 0; i < count; i += 16) sums = vdotq_s32(sums, vld1q_s8(x + i), vdupq_n_s8(-128));
    return -vaddvq_s32(sums);
  }

  // Lane r: the sum over the lanes of v[r].
  static int32x4_t sum_of_each(const int32x4_t* v) {
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
  }

  // Adds the dots of 16 packed rows with quad kQuad of the tokens' four.
  template <int kQuad, int kTokens>
  [[gnu::always_inline]] static void add_quad(const int8_t* unit, const int8x16_t (&x)[kTokens],
                                              I (&sums)[kTokens]) {
    const int8_t* w = unit + 64 * kQuad;
    const int8x16_t a = vld1q_s8(w), b = vld1q_s8(w + 16), c = vld1q_s8(w + 32),
                    d = vld1q_s8(w + 48);
    for (int t = 0; t < kTokens; ++t) {
      I& sum = sums[t];
      sum = {vdotq_laneq_s32(sum.a, a, x[t], kQuad), vdotq_laneq_s32(sum.b, b, x[t], kQuad),
             vdotq_laneq_s32(sum.c, c, x[t], kQuad), vdotq_laneq_s32(sum.d, d, x[t], kQuad)};
    }
  }
};

}  // namespace
}  // namespace lapidary::neon
