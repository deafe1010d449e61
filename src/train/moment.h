// What an optimizer remembers of one tensor: an average over steps, in f32 or in 8 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_vector.h"
#include "base/dtype.h"

namespace lapidary {

// Part of an optimizer's state, as it is saved: a view of memory that the optimizer owns.
struct StateArray {
  std::string name;
  DType dtype = DType::kF32;
  int64_t elements = 0;
  std::span<std::byte> bytes;
};

enum class MomentType : uint8_t {
  kF32,
  kUnsigned8,  // of values >= 0
  kSigned8,
};

// Elements that share the exponent of an 8-bit moment.
inline constexpr int64_t kMomentBlock = 256;

// 8 bits. Code c > 0 of a block with the base b stands for the float whose bits are (b + c) << 20,
// code 0 for zero: floats of 3 explicit bits of mantissa, neighbours at most 1/8 apart, the largest
// at or just above the block's largest value. Unsigned codes reach 2^31 below it; signed ones,
// whose top bit is the sign, 2^15. A value between two levels becomes one of them at random so that
// the mean is the value, which means that the error is below 1/8 of the value and that a moment
// moves, on average, however little a step changes it: rounded to the nearest, a moment that
// changes by a thousandth would stay where it is forever. Below the lowest level, signed values
// become it or zero in the same way; positive unsigned ones become it, never zero, so that no
// square root of a second moment that had a gradient is zero.
class Moment {
 public:
  // All zero. `name` is that of the state's arrays: "exp_avg.W" and, of 8 bits, "exp_avg.W.base".
  Moment(std::string name, MomentType type, int64_t size);

  MomentType type() const { return type_; }
  int64_t size() const { return size_; }
  float at(int64_t i) const;
  void clear(int64_t i);  // sets it to zero
  void clear();
  void append_arrays(std::vector<StateArray>& out);

  float* floats() { return floats_.data(); }  // of kF32: [size]
  // Of 8 bits: reads the block that starts at element `first`, `count` elements.
  void decode(int64_t first, int64_t count, float* out) const;
  // And writes it. `random[i]` decides the rounding of element i.
  void encode(int64_t first, int64_t count, const float* values, const uint16_t* random);

 private:
  std::string name_;
  MomentType type_;
  int64_t size_;
  AlignedVector<float> floats_;
  AlignedVector<uint8_t> codes_;  // [size]
  std::vector<int32_t> bases_;    // [size / kMomentBlock, rounded up]
};

}  // namespace lapidary
