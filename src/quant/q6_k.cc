#include "quant/q6_k.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"
#include "quant/lanes.h"

namespace lapidary {

namespace {

constexpr size_t kGroup = 16;
constexpr size_t kGroups = kQ6KBlock / kGroup;
constexpr size_t kLowBytes = kQ6KBlock / 2, kHighBytes = kQ6KBlock / 4;
constexpr float kBottomCode = -32, kTopCode = 31;

using Group = std::span<const float, kGroup>;
using Codes = std::array<float, kGroup>;  // whole numbers, counted from zero

void choose_codes(Group values, float scale, Codes& codes) {
  const float per_code = std::abs(scale) > 0x1p-126f ? 1 / scale : 0;
  for (size_t i = 0; i < kGroup; ++i)
    codes[i] = round_whole(std::min(std::max(values[i] * per_code, kBottomCode), kTopCode));
}

template <class Term>
float sum_over_group(Term&& term) {
  return sum_in_lanes(kGroup, term);
}

float squared_error(Group values, float scale, const Codes& codes) {
  return sum_over_group([&](size_t i) {
    const float error = scale * codes[i] - values[i];
    return error * error;
  });
}

// The scale that suits codes best.
float fit_scale(Group values, const Codes& codes) {
  const float sum_qq = sum_over_group([&](size_t i) { return codes[i] * codes[i]; });
  const float sum_qx = sum_over_group([&](size_t i) { return codes[i] * values[i]; });
  return sum_qq > 0 ? sum_qx / sum_qq : 0;
}

// Starts with steps around the one that puts the weight of the largest magnitude at the code of the
// largest magnitude, and keeps the scale of least error.
float search_scale(Group values) {
  constexpr int kSteps = 16;
  float extreme = 0;
  for (const float x : values)
    if (std::abs(x) > std::abs(extreme)) extreme = x;
  float best = 0, least = INFINITY;
  Codes codes;
  for (int i = 0; i < kSteps; ++i) {
    choose_codes(values, extreme / (kBottomCode + 0.25f * static_cast<float>(i - kSteps / 2)),
                 codes);
    const float scale = fit_scale(values, codes);
    choose_codes(values, scale, codes);
    const float error = squared_error(values, scale, codes);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

// Of the stored scales around the searched one, that of least error.
int store_scale(Group values, float scale, float d) {
  if (d == 0) return 0;
  const int start = static_cast<int>(std::lround(std::clamp(scale / d, -128.0f, 127.0f)));
  int best = start;
  float least = INFINITY;
  Codes codes;
  for (int s = std::max(-128, start - 1); s <= std::min(127, start + 1); ++s) {
    choose_codes(values, d * static_cast<float>(s), codes);
    const float error = squared_error(values, d * static_cast<float>(s), codes);
    if (error < least) {
      least = error;
      best = s;
    }
  }
  return best;
}

// Where the code of a weight lies in a block.
struct Place {
  size_t low, low_shift;
  size_t high, high_shift;
};
Place place_of(size_t weight) {
  const size_t half = weight / 128, i = weight % 128;
  return {half * 64 + i % 64, i / 64 * 4, half * 32 + i % 32, i / 32 * 2};
}

void encode_block(std::span<const float> values, std::byte* block) {
  const auto group = [&](size_t i) { return Group(values.data() + i * kGroup, kGroup); };
  std::array<float, kGroups> scales;
  float extreme = 0;
  for (size_t i = 0; i < kGroups; ++i) {
    scales[i] = search_scale(group(i));
    if (std::abs(scales[i]) > std::abs(extreme)) extreme = scales[i];
  }
  const Float16 stored_d = to_float16(extreme / -128);
  const float d = to_float(stored_d);

  std::memset(block, 0, kLowBytes + kHighBytes);
  for (size_t i = 0; i < kGroups; ++i) {
    const int scale = store_scale(group(i), scales[i], d);
    block[kLowBytes + kHighBytes + i] = static_cast<std::byte>(scale);
    Codes codes;
    choose_codes(group(i), d * static_cast<float>(scale), codes);
    for (size_t j = 0; j < kGroup; ++j) {
      const Place place = place_of(i * kGroup + j);
      const int code = static_cast<int>(codes[j] - kBottomCode);
      block[place.low] |= static_cast<std::byte>((code & 15) << place.low_shift);
      block[kLowBytes + place.high] |= static_cast<std::byte>((code >> 4) << place.high_shift);
    }
  }
  std::memcpy(block + kLowBytes + kHighBytes + kGroups, &stored_d.bits, sizeof stored_d.bits);
}

}  // namespace

void q6_k_encode(std::span<const float> values, std::byte* blocks) {
  LAPIDARY_CHECK(values.size() % kQ6KBlock == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kQ6KBlock, blocks += kQ6KBlockBytes)
    encode_block(values.subspan(first, kQ6KBlock), blocks);
}

}  // namespace lapidary
