#include "kernels/kv_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float16.h"

namespace lapidary {

namespace {

constexpr float kOutward = 0x1p-8f;  // as much as rounding to bf16 can take back

struct Group {
  BFloat16 scale, bias;
};

Group choose_group(const float* values, int count, int levels) {
  const auto [least, largest] = std::minmax_element(values, values + count);
  const BFloat16 bias = to_bfloat16(*least - kOutward * std::abs(*least));
  const float scale = (*largest - to_float(bias)) / static_cast<float>(levels);
  return {to_bfloat16(scale + kOutward * scale), bias};
}

void store_group(const float* values, int count, int bits, std::byte* group, std::byte* codes) {
  const int levels = (1 << bits) - 1;
  const Group g = choose_group(values, count, levels);
  std::memcpy(group, &g, sizeof g);
  const float scale = to_float(g.scale), bias = to_float(g.bias);
  const float inverse = scale > 0 ? 1 / scale : 0;
  std::memset(codes, 0, static_cast<size_t>(count * bits / 8));
  for (int i = 0; i < count; ++i) {
    const float level = std::nearbyint((values[i] - bias) * inverse);
    const int code =
        level > 0 ? static_cast<int>(std::min(level, static_cast<float>(levels))) : 0;  // NaN: 0
    codes[i * bits / 8] |= static_cast<std::byte>(code << (i * bits % 8));
  }
}

}  // namespace

void store_kv_row(const float* values, int head_dim, KvType type, std::byte* row) {
  const std::span row_values(values, static_cast<size_t>(head_dim));
  if (type == KvType::kF32) {
    store_floats(row_values, DType::kF32, row);
  } else if (type == KvType::kBF16) {
    store_floats(row_values, DType::kBF16, row);
  } else {
    const int bits = code_bits(type);
    std::byte* codes = row + kv_scale_bytes(type, head_dim);
    for (int i = 0; i < head_dim; i += kKvGroup)
      store_group(values + i, std::min(kKvGroup, head_dim - i), bits, row + i / kKvGroup * 4,
                  codes + i * bits / 8);
  }
}

float kv_value(const std::byte* row, int head_dim, KvType type, int index) {
  if (type == KvType::kF32) return float_at(row, DType::kF32, index);
  if (type == KvType::kBF16) return float_at(row, DType::kBF16, index);
  const int bits = code_bits(type);
  const std::byte* codes = row + kv_scale_bytes(type, head_dim);
  const int code = std::to_integer<int>(codes[index * bits / 8]) >> (index * bits % 8);
  const int64_t group = 2 * (index / kKvGroup);
  return std::fma(float_at(row, DType::kBF16, group), static_cast<float>(code & ((1 << bits) - 1)),
                  float_at(row, DType::kBF16, group + 1));
}

}  // namespace lapidary
