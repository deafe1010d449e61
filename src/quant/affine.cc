#include "quant/affine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"
#include "quant/lanes.h"

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

// Calls choose(values of a group, codes) for the scale and bias of each, and stores all three.
template <class Choose>
void encode_groups(std::span<const float> values, const AffineFormat& format,
                   const AffineTarget& target, Choose&& choose) {
  const auto group = static_cast<size_t>(format.group);
  LAPIDARY_CHECK(format.group % 8 == 0 && format.group <= kMaxGroup && is_float(format.dtype) &&
                     values.size() % group == 0,
                 fmt::format("{} values in groups of {}", values.size(), format.group));
  const size_t group_bytes = group * static_cast<size_t>(format.bits) / 8;
  const auto element = static_cast<size_t>(size_of(format.dtype));
  for (size_t i = 0; i < values.size() / group; ++i) {
    uint32_t codes[kMaxGroup] = {};
    const GroupScale g = choose(i * group, codes);
    pack(codes, format.group, format.bits, target.codes + i * group_bytes);
    store_floats({&g.scale, 1}, format.dtype, target.scales + i * element);
    store_floats({&g.bias, 1}, format.dtype, target.biases + i * element);
  }
}

GroupScale rounded(GroupScale g, DType dtype) {
  return {rounded_to(dtype, g.scale), rounded_to(dtype, g.bias)};
}

// A group whose scale and bias are searched.
class GroupSearch {
 public:
  GroupSearch(std::span<const float> values, std::span<const float> importance,
              const AffineFormat& format)
      : x_(values), h_(importance), format_(format) {
    top_code_ = static_cast<float>((1 << format.bits) - 1);
    sum_h_ = sum_in_lanes(x_.size(), [&](size_t i) { return h_[i]; });
    mean_x_ = sum_in_lanes(x_.size(), [&](size_t i) { return h_[i] * x_[i]; }) / sum_h_;
  }

  // Starts with codes that reach past the ends of the range or stop short of them, since fewer
  // weights lie out there, and fits a line to the codes twice.
  GroupScale run(uint32_t* codes) {
    constexpr int kStarts = 9;
    constexpr float kWidest = 1.06f, kNarrowing = 0.06f;
    const auto [low, high] = std::minmax_element(x_.begin(), x_.end());
    keep_first(group_scale(x_, top_code_), codes);
    const float range = *high - *low, middle = *low + range / 2;
    for (int i = 0; i < kStarts && range > 0; ++i) {
      const float scale = range * (kWidest - kNarrowing * static_cast<float>(i)) / top_code_;
      GroupScale g{scale, middle - scale * top_code_ / 2};
      for (int round = 0; round < 2; ++round) {
        choose(g);
        g = fitted(g);
      }
      keep_if_better(rounded(g, format_.dtype), codes);
    }
    return best_;
  }

 private:
  // The choice of affine_encode, codes included: what is never made worse.
  void keep_first(GroupScale g, uint32_t* codes) {
    choose_codes(x_, g, top_code_, codes);
    for (size_t i = 0; i < x_.size(); ++i) q_[i] = static_cast<float>(codes[i]);
    best_ = rounded(g, format_.dtype);
    least_ = weighted_error(best_);
    most_ = std::max(plain_error(best_), allowed());
  }

  void keep_if_better(GroupScale g, uint32_t* codes) {
    if (!(std::abs(g.scale) > 0x1p-100f)) return;
    choose(g);
    const float error = weighted_error(g);
    if (!(error < least_) || plain_error(g) > most_) return;
    least_ = error;
    best_ = g;
    for (size_t i = 0; i < x_.size(); ++i) codes[i] = static_cast<uint32_t>(q_[i]);
  }

  // The codes that suit a line best, into q_.
  void choose(GroupScale g) {
    const float per_code = 1 / g.scale;
    for (size_t i = 0; i < x_.size(); ++i)
      q_[i] = round_whole(std::min(std::max((x_[i] - g.bias) * per_code, 0.0f), top_code_));
  }

  // The line that suits the codes best: weighted least squares.
  GroupScale fitted(GroupScale g) const {
    const size_t n = x_.size();
    const float mean_q = sum_in_lanes(n, [&](size_t i) { return h_[i] * q_[i]; }) / sum_h_;
    const float qq =
        sum_in_lanes(n, [&](size_t i) { return h_[i] * (q_[i] - mean_q) * (q_[i] - mean_q); });
    const float qx =
        sum_in_lanes(n, [&](size_t i) { return h_[i] * (q_[i] - mean_q) * (x_[i] - mean_x_); });
    if (!(qq > 0) || !(qx > 0)) return g;
    const float scale = qx / qq;
    return {scale, mean_x_ - scale * mean_q};
  }

  float weighted_error(GroupScale g) const {
    return sum_in_lanes(x_.size(), [&](size_t i) {
      const float error = g.scale * q_[i] + g.bias - x_[i];
      return h_[i] * error * error;
    });
  }
  float plain_error(GroupScale g) const {
    return sum_in_lanes(x_.size(), [&](size_t i) {
      const float error = g.scale * q_[i] + g.bias - x_[i];
      return error * error;
    });
  }
  float allowed() const {
    const auto [low, high] = std::minmax_element(x_.begin(), x_.end());
    const double worst =
        affine_error_share(format_) * (std::max(0.0, double{*high}) - std::min(0.0, double{*low}));
    return static_cast<float>(static_cast<double>(x_.size()) * worst * worst * (1 - 1e-4));
  }

  std::span<const float> x_, h_;
  const AffineFormat& format_;
  float top_code_ = 0;
  float sum_h_ = 0, mean_x_ = 0;
  float q_[kMaxGroup] = {};  // codes of the line that is looked at, whole numbers
  GroupScale best_ = {};
  float least_ = 0;  // weighted error of the best
  float most_ = 0;   // plain error that a line may have
};

}  // namespace

void affine_encode(std::span<const float> values, const AffineFormat& format,
                   const AffineTarget& target) {
  const auto top_code = static_cast<float>((1 << format.bits) - 1);
  const auto group = static_cast<size_t>(format.group);
  encode_groups(values, format, target, [&](size_t first, uint32_t* codes) {
    const auto part = values.subspan(first, group);
    const GroupScale g = group_scale(part, top_code);
    choose_codes(part, g, top_code, codes);
    return g;
  });
}

// A group's edge of the larger magnitude is at least half its range away from zero, so that bending
// the scale to make zero a code changes it by a quarter at most (2 bits: from 1.5 steps to 2) and
// the far end is missed by three quarters of a step. The values are rounded to the type of the
// scales first. The scale is stored rounded and multiplied with codes that reach over the range, a
// quarter more when bent; so is the bias, the edge.
double affine_error_share(const AffineFormat& format) {
  const double rounding = format.dtype == DType::kBF16  ? 0x1p-8
                          : format.dtype == DType::kF16 ? 0x1p-11
                                                        : 0x1p-24;
  return 0.75 / ((1 << format.bits) - 1) + 3.25 * rounding;
}

void affine_search(std::span<const float> values, std::span<const float> importance,
                   const AffineFormat& format, const AffineTarget& target) {
  LAPIDARY_CHECK(importance.size() == values.size(), "an importance for each value");
  const auto group = static_cast<size_t>(format.group);
  encode_groups(values, format, target, [&](size_t first, uint32_t* codes) {
    return GroupSearch(values.subspan(first, group), importance.subspan(first, group), format)
        .run(codes);
  });
}

}  // namespace lapidary
