#include "train/moment.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "lapidary/error.h"

namespace lapidary {

namespace {

constexpr int kDropped = 20;  // bits of an f32 that a code leaves out: 3 of 23 stay
constexpr int32_t kMagnitude = 0x7fffffff;

// The bits of a positive float without the last ones, which decide how often it is rounded up: a
// draw of 16 bits stands for the middle of what 20 bits would have it be.
int32_t rounded(int32_t bits, uint16_t random) {
  return (bits + (int32_t{random} << (kDropped - 16)) + (1 << (kDropped - 17))) >> kDropped;
}

float level(int32_t base, int32_t code) {
  return code == 0 ? 0.0f : std::bit_cast<float>((base + code) << kDropped);
}

// The base with which the largest magnitude, rounded up, has the highest code.
int32_t base_of(const float* values, int64_t count, int32_t highest) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<int32_t>(values[i]) & kMagnitude);
  return std::max(0, (largest >> kDropped) + 1 - highest);
}

void encode_unsigned(const float* values, const uint16_t* random, int64_t count, int32_t base,
                     uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(values[i]) & kMagnitude;
    const int32_t code = rounded(bits, random[i]) - base;
    const int32_t least = bits > 0 ? 1 : 0;
    codes[i] = static_cast<uint8_t>(code < least ? least : code);
  }
}

void encode_signed(const float* values, const uint16_t* random, int64_t count, int32_t base,
                   uint8_t* codes) {
  const float lowest = level(base, 1);
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<int32_t>(values[i]);
    const int32_t magnitude = bits & kMagnitude;
    const int32_t code = rounded(magnitude, random[i]) - base;
    const float threshold = (static_cast<float>(random[i]) + 0.5f) * (lowest / 0x1p16f);
    const int32_t low = std::bit_cast<float>(magnitude) > threshold ? 1 : 0;
    const int32_t chosen = magnitude < ((base + 1) << kDropped) ? low : code;
    const int32_t sign = bits < 0 ? 0x80 : 0;
    codes[i] = static_cast<uint8_t>(chosen == 0 ? 0 : chosen | sign);
  }
}

}  // namespace

Moment::Moment(std::string name, MomentType type, int64_t size)
    : name_(std::move(name)), type_(type), size_(size) {
  if (type == MomentType::kF32) {
    floats_.resize(static_cast<size_t>(size));
  } else {
    codes_.resize(static_cast<size_t>(size));
    bases_.resize(static_cast<size_t>((size + kMomentBlock - 1) / kMomentBlock));
  }
}

float Moment::at(int64_t i) const {
  const auto at = static_cast<size_t>(i);
  if (type_ == MomentType::kF32) return floats_[at];
  const int32_t base = bases_[at / kMomentBlock], code = codes_[at];
  if (type_ == MomentType::kUnsigned8) return level(base, code);
  return code < 0x80 ? level(base, code) : -level(base, code - 0x80);
}

void Moment::clear(int64_t i) {
  if (type_ == MomentType::kF32)
    floats_[static_cast<size_t>(i)] = 0;
  else
    codes_[static_cast<size_t>(i)] = 0;
}

void Moment::clear() {
  std::fill(floats_.begin(), floats_.end(), 0.0f);
  std::fill(codes_.begin(), codes_.end(), uint8_t{0});
  std::fill(bases_.begin(), bases_.end(), 0);
}

void Moment::append_arrays(std::vector<StateArray>& out) {
  if (type_ == MomentType::kF32) {
    out.push_back({name_, DType::kF32, size_, std::as_writable_bytes(std::span(floats_))});
  } else {
    out.push_back({name_, DType::kU8, size_, std::as_writable_bytes(std::span(codes_))});
    out.push_back({name_ + ".base", DType::kI32, std::ssize(bases_),
                   std::as_writable_bytes(std::span(bases_))});
  }
}

void Moment::decode(int64_t first, int64_t count, float* out) const {
  const uint8_t* const codes = codes_.data() + first;
  const int32_t base = bases_[static_cast<size_t>(first / kMomentBlock)];
  const int32_t magnitude = type_ == MomentType::kSigned8 ? 0x7f : 0xff;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t code = codes[i] & magnitude;
    const int32_t sign = (codes[i] & ~magnitude) << 24;  // 0x80 to the sign of an f32
    out[i] = std::bit_cast<float>((code == 0 ? 0 : (base + code) << kDropped) | sign);
  }
}

void Moment::encode(int64_t first, int64_t count, const float* values, const uint16_t* random) {
  LAPIDARY_CHECK(first % kMomentBlock == 0 && count <= kMomentBlock, "whole blocks are encoded");
  const bool is_signed = type_ == MomentType::kSigned8;
  const int32_t base = base_of(values, count, is_signed ? 0x7f : 0xff);
  bases_[static_cast<size_t>(first / kMomentBlock)] = base;
  (is_signed ? encode_signed : encode_unsigned)(values, random, count, base, codes_.data() + first);
}

}  // namespace lapidary
