// A row of a K/V cache: the keys, or the values, of one head at one position.
//
//   f32, bf16   head_dim values
//   q8, q4      for each group of 32 values (the last may be shorter) a scale and a bias, bf16;
//   then
//               the codes in order, 8 or 4 bits each, low bits first. value = scale * code + bias,
//               rounded once.
//
// Scale and bias are rounded outwards, so that no value lies beyond the codes: each is off by half
// a scale at most.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lapidary/kv_type.h"

namespace lapidary {

constexpr int kKvGroup = 32;

constexpr int code_bits(KvType type) {
  return type == KvType::kQ8 ? 8 : type == KvType::kQ4 ? 4 : 0;
}
// Bytes of the scales and biases of a row.
constexpr int64_t kv_scale_bytes(KvType type, int head_dim) {
  return code_bits(type) == 0 ? 0 : (head_dim + kKvGroup - 1) / kKvGroup * 4;
}
// head_dim is a multiple of 16.
constexpr int64_t kv_row_bytes(KvType type, int head_dim) {
  return type == KvType::kF32 ? int64_t{head_dim} * 4
         : type == KvType::kBF16
             ? int64_t{head_dim} * 2
             : kv_scale_bytes(type, head_dim) + int64_t{head_dim} * code_bits(type) / 8;
}

void store_kv_row(const float* values, int head_dim, KvType type, std::byte* row);

float kv_value(const std::byte* row, int head_dim, KvType type, int index);

}  // namespace lapidary
