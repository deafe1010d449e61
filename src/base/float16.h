// The two 16-bit floating-point storage types and their conversions.
//
// Both are storage only: arithmetic happens in f32. Rounding is to nearest, ties to even, as in
// every framework that writes these files. Always inlined, so that a copy compiled for one
// instruction set (kernels/) can never stand in for all.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/dtype.h"

namespace lapidary {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2);

[[gnu::always_inline]] inline float to_float(float x) {
  return x;
}

[[gnu::always_inline]] inline float to_float(BFloat16 x) {
  return std::bit_cast<float>(uint32_t{x.bits} << 16);
}

[[gnu::always_inline]] inline BFloat16 to_bfloat16(float x) {
  uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // NaN
  u += 0x7fffu + ((u >> 16) & 1u);
  return {static_cast<uint16_t>(u >> 16)};
}

[[gnu::always_inline]] inline float to_float(Float16 x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fu;
  const uint32_t mantissa = x.bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

[[gnu::always_inline]] inline Float16 to_float16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to inf
  if (magnitude < 0x38800000u) {  // below 2^-14: the sum's own rounding leaves units of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

// Element `index` of an array of f32, f16 or bf16 at any address.
[[gnu::always_inline]] inline float float_at(const std::byte* array, DType type, int64_t index) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, array + 4 * index, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, array + 2 * index, 2);
  return type == DType::kBF16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
}

// The nearest value that f32, f16 or bf16 has.
[[gnu::always_inline]] inline float rounded_to(DType type, float x) {
  if (type == DType::kBF16) return to_float(to_bfloat16(x));
  if (type == DType::kF16) return to_float(to_float16(x));
  return x;
}

// Rounds `values` to f32, f16 or bf16 and puts them one after another, at any address.
inline void store_floats(std::span<const float> values, DType type, std::byte* array) {
  if (type == DType::kF32) {
    std::memcpy(array, values.data(), values.size_bytes());
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits =
        type == DType::kBF16 ? to_bfloat16(values[i]).bits : to_float16(values[i]).bits;
    std::memcpy(array + 2 * i, &bits, sizeof bits);
  }
}

}  // namespace lapidary
