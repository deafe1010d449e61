#include "quant/q4_k.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/fail.h"
#include "base/float16.h"
#include "quant/lanes.h"

namespace lapidary {

namespace {

constexpr size_t kGroup = 32;
constexpr size_t kGroups = kQ4KBlock / kGroup;
constexpr size_t kScaleBytes = 12;
constexpr float kTopCode = 15;
constexpr int kTopScale = 63;

using Group = std::span<const float, kGroup>;
using Codes = std::array<float, kGroup>;  // whole numbers

// weight = scale * code - minimum; neither is negative.
struct Line {
  float scale = 0;
  float minimum = 0;
};

// The codes that suit a line best.
void choose_codes(Group values, const Line& line, Codes& codes) {
  const float per_code = line.scale > 0x1p-126f ? 1 / line.scale : 0;
  for (size_t i = 0; i < kGroup; ++i)
    codes[i] =
        round_whole(std::min(std::max((values[i] + line.minimum) * per_code, 0.0f), kTopCode));
}

template <class Term>
float sum_over_group(Term&& term) {
  return sum_in_lanes(kGroup, term);
}

float squared_error(Group values, const Line& line, const Codes& codes) {
  return sum_over_group([&](size_t i) {
    const float error = line.scale * codes[i] - line.minimum - values[i];
    return error * error;
  });
}

// The line that suits codes best.
Line fit_line(Group values, const Codes& codes) {
  constexpr float n = kGroup;
  const float sum_x = sum_over_group([&](size_t i) { return values[i]; });
  const float sum_q = sum_over_group([&](size_t i) { return codes[i]; });
  const float sum_qq = sum_over_group([&](size_t i) { return codes[i] * codes[i]; });
  const float sum_qx = sum_over_group([&](size_t i) { return codes[i] * values[i]; });
  const float determinant = n * sum_qq - sum_q * sum_q;  // of whole numbers: exact
  if (determinant > 0) {
    const float scale = (n * sum_qx - sum_q * sum_x) / determinant;
    const float minimum = (scale * sum_q - sum_x) / n;
    if (scale > 0 && minimum >= 0) return {scale, minimum};
  }
  return {sum_qq > 0 ? std::max(sum_qx / sum_qq, 0.0f) : 0, 0};
}

// Starts with steps that let the codes reach past the group's ends or stop short of them, since
// fewer weights lie out there, and keeps the line of least error.
Line search_line(Group values) {
  constexpr int kSteps = 16;
  float low = 0, high = values[0];
  for (const float x : values) {
    low = std::min(low, x);
    high = std::max(high, x);
  }
  if (high <= low) return {0, -low};  // one value, not positive
  Line best;
  float least = INFINITY;
  Codes codes;
  for (int i = 0; i < kSteps; ++i) {
    const float codes_in_range = kTopCode - 1 + 0.2f * static_cast<float>(i);
    choose_codes(values, {(high - low) / codes_in_range, -low}, codes);
    const Line line = fit_line(values, codes);
    choose_codes(values, line, codes);
    const float error = squared_error(values, line, codes);
    if (error < least) {
      least = error;
      best = line;
    }
  }
  return best;
}

// Of the scales and minima of 6 bits around the searched ones, those of least error.
struct Stored {
  int scale = 0;
  int minimum = 0;
};
Stored store_line(Group values, const Line& line, float d, float dmin) {
  const auto nearest = [](float x, float unit) {
    return unit > 0 ? static_cast<int>(std::lround(std::min(x / unit, float{kTopScale}))) : 0;
  };
  const Stored start{nearest(line.scale, d), nearest(line.minimum, dmin)};
  Stored best = start;
  float least = INFINITY;
  Codes codes;
  for (int s = std::max(0, start.scale - 1); s <= std::min(kTopScale, start.scale + 1); ++s)
    for (int m = std::max(0, start.minimum - 1); m <= std::min(kTopScale, start.minimum + 1); ++m) {
      const Line stored{d * static_cast<float>(s), dmin * static_cast<float>(m)};
      choose_codes(values, stored, codes);
      const float error = squared_error(values, stored, codes);
      if (error < least) {
        least = error;
        best = {s, m};
      }
    }
  return best;
}

void pack_stored(const std::array<Stored, kGroups>& groups, std::byte* out) {
  for (size_t i = 0; i < 4; ++i) {
    const Stored &a = groups[i], &b = groups[i + 4];
    out[i] = static_cast<std::byte>(a.scale | (b.scale >> 4) << 6);
    out[i + 4] = static_cast<std::byte>(a.minimum | (b.minimum >> 4) << 6);
    out[i + 8] = static_cast<std::byte>((b.scale & 15) | (b.minimum & 15) << 4);
  }
}

// Rounds to f16, as which it is stored, and leaves the rounded value behind.
void store_half(float& x, std::byte* out) {
  const Float16 half = to_float16(x);
  std::memcpy(out, &half.bits, sizeof half.bits);
  x = to_float(half);
}

void encode_block(std::span<const float> values, std::byte* block) {
  const auto group = [&](size_t i) { return Group(values.data() + i * kGroup, kGroup); };
  std::array<Line, kGroups> lines;
  float d = 0, dmin = 0;
  for (size_t i = 0; i < kGroups; ++i) {
    lines[i] = search_line(group(i));
    d = std::max(d, lines[i].scale / kTopScale);
    dmin = std::max(dmin, lines[i].minimum / kTopScale);
  }
  store_half(d, block);
  store_half(dmin, block + 2);

  std::array<Stored, kGroups> stored;
  std::byte* codes_out = block + 4 + kScaleBytes;
  std::memset(codes_out, 0, kQ4KBlock / 2);
  for (size_t i = 0; i < kGroups; ++i) {
    stored[i] = store_line(group(i), lines[i], d, dmin);
    Codes codes;
    choose_codes(
        group(i),
        {d * static_cast<float>(stored[i].scale), dmin * static_cast<float>(stored[i].minimum)},
        codes);
    std::byte* run = codes_out + i / 2 * kGroup;
    for (size_t j = 0; j < kGroup; ++j)
      run[j] |= static_cast<std::byte>(static_cast<int>(codes[j]) << (i % 2 * 4));
  }
  pack_stored(stored, block + 4);
}

}  // namespace

void q4_k_encode(std::span<const float> values, std::byte* blocks) {
  LAPIDARY_CHECK(values.size() % kQ4KBlock == 0, fmt::format("{} values", values.size()));
  for (size_t first = 0; first < values.size(); first += kQ4KBlock, blocks += kQ4KBlockBytes)
    encode_block(values.subspan(first, kQ4KBlock), blocks);
}

}  // namespace lapidary
