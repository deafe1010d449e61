#include "quant/affine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"

namespace lapidary {

namespace {

constexpr int kMaxGroup = 128;

struct GroupScale {
  float scale;
  float bias;
};

// The code counts from the extreme of the larger magnitude, and the scale is bent so that zero is a
// code exactly. It is negative where that extreme is the maximum.
GroupScale group_scale(std::span<const float> group, float top_code) {
  constexpr float kSmallestScale = 1e-7f;
  float low = group[0], high = group[0];
  for (const float x : group) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  const bool count_up = std::abs(low) > std::abs(high);
  const float step = std::max((high - low) / top_code, kSmallestScale);
  const float scale = count_up ? step : -step;
  const float edge = count_up ? low : high;
  const float zero_code = std::rint(edge / scale);
  if (zero_code == 0) return {scale, 0};
  return {edge / zero_code, edge};
}

// Adding 1.5 * 2^23 to 0 <= x < 2^22 rounds x to an integer, ties to even, and leaves that integer
// in the low bits: what rint does, in a form that compilers vectorise on any CPU.
uint32_t round_to_bits(float x) {
  return std::bit_cast<uint32_t>(x + 12582912.0f) & 0xffu;
}

void choose_codes(std::span<const float> group, GroupScale g, float top_code, uint32_t* codes) {
  for (size_t i = 0; i < group.size(); ++i) {
    const float code = (group[i] - g.bias) / g.scale;
    codes[i] = round_to_bits(std::min(std::max(code, 0.0f), top_code));
  }
}

// Least significant bit first. Eight codes of any width fill `bits` bytes.
void pack(const uint32_t* codes, int count, int bits, std::byte* out) {
  for (int i = 0; i < count; i += 8, out += bits) {
    uint64_t word = 0;
    for (int j = 0; j < 8; ++j) word |= uint64_t{codes[i + j]} << (j * bits);
    for (int byte = 0; byte < bits; ++byte)
      out[byte] = static_cast<std::byte>((word >> (8 * byte)) & 0xff);
  }
}

void store(float value, DType dtype, std::byte* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, &value, sizeof value);
    return;
  }
  const uint16_t bits = dtype == DType::kBF16 ? to_bfloat16(value).bits : to_float16(value).bits;
  std::memcpy(out, &bits, sizeof bits);
}

}  // namespace

void affine_encode(std::span<const float> values, const AffineFormat& format,
                   const AffineTarget& target) {
  const auto group = static_cast<size_t>(format.group);
  LAPIDARY_CHECK(format.group % 8 == 0 && format.group <= kMaxGroup && is_float(format.dtype) &&
                     values.size() % group == 0,
                 fmt::format("{} values in groups of {}", values.size(), format.group));
  const auto top_code = static_cast<float>((1 << format.bits) - 1);
  const size_t group_bytes = group * static_cast<size_t>(format.bits) / 8;
  const auto element = static_cast<size_t>(size_of(format.dtype));
  for (size_t i = 0; i < values.size() / group; ++i) {
    const auto part = values.subspan(i * group, group);
    const GroupScale g = group_scale(part, top_code);
    uint32_t codes[kMaxGroup] = {};
    choose_codes(part, g, top_code, codes);
    pack(codes, format.group, format.bits, target.codes + i * group_bytes);
    store(g.scale, format.dtype, target.scales + i * element);
    store(g.bias, format.dtype, target.biases + i * element);
  }
}

}  // namespace lapidary
