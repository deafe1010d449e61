// The vocabulary of simd/README.md on NEON: 16 floats are four registers.
#pragma once

#include <arm_neon.h>
#include <cstring>

#include "kernels/arm/load_codes.h"
#include "kernels/arm/neon_quantized.h"
#include "kernels/simd/codes.h"

namespace lapidary::neon {
namespace {

// One register's lanes of an F.
struct Part {
  static constexpr int kLanes = 4;
  float32x4_t v;

  static Part zero() { return {vdupq_n_f32(0)}; }
  static Part load(const float* p) { return {vld1q_f32(p)}; }
  static Part load(const BFloat16* p) { return {from_bf16(vld1_u16(&p->bits))}; }
  static Part load(const Float16* p) { return {from_f16(vld1_u16(&p->bits))}; }
  static Part load_once(const float* p) { return load(p); }  // no load is part of an instruction
};
inline void store(float* p, Part x) {
  vst1q_f32(p, x.v);
}
inline Part fma(Part x, Part y, Part z) {
  return {vfmaq_f32(z.v, x.v, y.v)};
}

struct F {
  float32x4_t a, b, c, d;  // lanes 0-3, 4-7, 8-11, 12-15

  using Part = neon::Part;
  static constexpr int kRows = 4;  // 4 x 6 sums, 4 weights and an activation: 29 of 32 registers
  static constexpr int kTokens = 6;
  static constexpr int kGemmRows = 6;  // sums of a product of packed operands: 6 x 16
  static constexpr int kGemmVectors = 1;

  static F zero() { return broadcast(0.0f); }
  static F broadcast(float x) {
    const float32x4_t four = vdupq_n_f32(x);
    return {four, four, four, four};
  }
  template <class T>
  static F broadcast(T x) {
    return broadcast(to_float(x));
  }
  template <class T>
  static F load(const T* p) {
    return {Part::load(p).v, Part::load(p + 4).v, Part::load(p + 8).v, Part::load(p + 12).v};
  }
  template <class T>
  static F load(const T* p, int n) {
    T copy[16] = {};
    std::memcpy(copy, p, static_cast<size_t>(n) * sizeof(T));
    return load(copy);
  }

  static F from(I i) {
    return {vcvtq_f32_s32(i.a), vcvtq_f32_s32(i.b), vcvtq_f32_s32(i.c), vcvtq_f32_s32(i.d)};
  }

  template <int kBits>
  struct Codes;
};

// op on the registers of each operand.
template <class Op, class... Fs>
[[gnu::always_inline]] inline F each(Op&& op, Fs... x) {
  return {op(x.a...), op(x.b...), op(x.c...), op(x.d...)};
}

inline void store(float* p, F x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline void store(float* p, F x, int n) {
  float copy[16];
  store(copy, x);
  std::memcpy(p, copy, static_cast<size_t>(n) * sizeof(float));
}
inline F operator+(F x, F y) {
  return each([](auto i, auto j) { return vaddq_f32(i, j); }, x, y);
}
inline F operator-(F x, F y) {
  return each([](auto i, auto j) { return vsubq_f32(i, j); }, x, y);
}
inline F operator*(F x, F y) {
  return each([](auto i, auto j) { return vmulq_f32(i, j); }, x, y);
}
inline F operator/(F x, F y) {
  return each([](auto i, auto j) { return vdivq_f32(i, j); }, x, y);
}
// As x86 has them: y where the two are equal (0 and -0) or one is no number. NEON's own
// instructions would give a NaN there.
inline F min(F x, F y) {
  return each([](auto i, auto j) { return vbslq_f32(vcltq_f32(i, j), i, j); }, x, y);
}
inline F max(F x, F y) {
  return each([](auto i, auto j) { return vbslq_f32(vcgtq_f32(i, j), i, j); }, x, y);
}
inline F abs(F x) {
  return each([](auto i) { return vabsq_f32(i); }, x);
}
inline F fma(F x, F y, F z) {
  return each([](auto i, auto j, auto k) { return vfmaq_f32(k, i, j); }, x, y, z);
}
inline F round(F x) {
  return each([](auto i) { return vrndnq_f32(i); }, x);
}
inline F exp2_int(F x) {
  return each(
      [](auto i) {
        const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(i), vdupq_n_s32(127));
        return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
      },
      x);
}

inline float sum(F x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float max_lane(F x) {
  return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x.a, x.c), vmaxnmq_f32(x.b, x.d)));
}

template <int kBits>
struct F::Codes {
  static constexpr simd::SpreadTable kTable = simd::make_spread_table<kBits>();
  float32x4_t scale;
  float32x4_t bias;

  void set(F new_scale, F new_bias) {
    scale = new_scale.a;  // the same in every lane
    bias = new_bias.a;
  }
  F decode(const uint8_t* p) const {
    const uint8x16_t packed = load_codes<kBits>(p);
    return {quarter(packed, 0), quarter(packed, 1), quarter(packed, 2), quarter(packed, 3)};
  }

 private:
  [[gnu::always_inline]] float32x4_t quarter(uint8x16_t packed, int which) const {
    const uint8x16_t bytes = vqtbl1q_u8(packed, vld1q_u8(kTable.shuffle + 16 * which));
    const uint32x4_t right = vld1q_u32(kTable.shift + 4 * which);
    const uint32x4_t shifted =
        vshlq_u32(vreinterpretq_u32_u8(bytes), vnegq_s32(vreinterpretq_s32_u32(right)));
    const uint32x4_t codes = vandq_u32(shifted, vdupq_n_u32((1u << kBits) - 1));
    return vfmaq_f32(bias, vcvtq_f32_u32(codes), scale);
  }
};

}  // namespace
}  // namespace lapidary::neon
