// Q4_0, Q5_0 and Q8_0 against what the reference of ggml's formats makes of the same rows.
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "io/safetensors.h"
#include "quant/decode.h"
#include "quant/q4_0.h"
#include "quant/q5_0.h"
#include "quant/q8_0.h"

namespace lapidary {
namespace {

struct Format {
  const char* name;
  int64_t block_bytes;
  void (*encode)(std::span<const float>, std::byte*);
  WeightFormat format;
  float steps;  // from zero to the largest magnitude
};

constexpr Format kFormats[] = {{"q4_0", kQ4_0BlockBytes, q4_0_encode, WeightFormat::kQ4_0, 8},
                               {"q5_0", kQ5_0BlockBytes, q5_0_encode, WeightFormat::kQ5_0, 16},
                               {"q8_0", kQ8_0BlockBytes, q8_0_encode, WeightFormat::kQ8_0, 127}};

std::vector<std::byte> encode(const Format& format, std::span<const float> values) {
  std::vector<std::byte> blocks(values.size() / 32 * static_cast<size_t>(format.block_bytes));
  format.encode(values, blocks.data());
  return blocks;
}

std::vector<float> floats(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

TEST(GgmlEncode, EqualsTheReference) {
  const auto golden =
      SafetensorsFile::open(LAPIDARY_SOURCE_DIR "/tests/golden/ggml_encode.safetensors");
  const std::vector<float> values = floats(*golden.find("values"));
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const std::string name = format.name;
    const TensorView& theirs = *golden.find(name);
    const std::vector<std::byte> ours = encode(format, values);
    ASSERT_EQ(ours.size(), theirs.bytes.size());
    const auto bytes = static_cast<size_t>(format.block_bytes);
    for (size_t i = 0; i < ours.size(); i += bytes)
      EXPECT_EQ(std::memcmp(&ours[i], &theirs.bytes[i], bytes), 0) << "block " << i / bytes;

    std::vector<float> decoded(values.size());
    decode_blocks(format.format, theirs.bytes, decoded.data());
    EXPECT_EQ(decoded, floats(*golden.find(name + ".values")));
  }
}

TEST(GgmlDecode, EqualsTheReference) {
  const auto golden =
      SafetensorsFile::open(LAPIDARY_SOURCE_DIR "/tests/golden/ggml_decode.safetensors");
  for (const BlockFormat& format : kBlockFormats) {
    SCOPED_TRACE(format.name);
    const std::string name(format.name);
    const std::vector<float> theirs = floats(*golden.find(name + ".values"));
    std::vector<float> ours(theirs.size());
    ASSERT_EQ(theirs.size(), static_cast<size_t>(8 * format.cols));
    decode_blocks(format.format, golden.find(name)->bytes, ours.data());
    EXPECT_EQ(ours, theirs);
  }
}

// Half a step, a step at the end that Q4_0 and Q5_0 have no code for, and the rounding of d to f16:
// 2^-11 of each step away from zero.
TEST(GgmlEncode, RoundTripIsWithinAStep) {
  const CounterRng rng(5);
  std::vector<float> values(32 * 500);
  for (size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const std::vector<std::byte> blocks = encode(format, values);
    std::vector<float> decoded(values.size());
    decode_blocks(format.format, blocks, decoded.data());
    for (size_t first = 0; first < values.size(); first += 32) {
      float largest = 0;
      for (size_t i = first; i < first + 32; ++i) largest = std::max(largest, std::abs(values[i]));
      const float step = largest / format.steps;
      const float bound =
          step * ((format.steps < 127 ? 1.0f : 0.5f) + format.steps * 0x1p-11f) * (1 + 0x1p-20f);
      for (size_t i = first; i < first + 32; ++i)
        EXPECT_TRUE(std::abs(decoded[i] - values[i]) <= bound) << i;
    }
  }
}

// Magnitudes for which the inverse of the scale is no number.
TEST(GgmlEncode, ValuesTooSmallForAScaleAreZero) {
  for (const float tiny : {0x1p-149f, 0x1p-130f, 0x1p-126f}) {
    const std::vector<float> values(32, tiny);
    for (const Format& format : kFormats) {
      const std::vector<std::byte> zeros = encode(format, std::vector<float>(32));
      EXPECT_EQ(encode(format, values), zeros) << format.name << " " << tiny;
    }
  }
}

// Every quotient near a half, where the rounding of the sum could go wrong. d is 1.
TEST(GgmlEncode, HalvesGoAwayFromZero) {
  for (int half = 0; half < 127; ++half)
    for (const float offset : {-1.0f, 0.0f, 1.0f})
      for (const float sign : {-1.0f, 1.0f}) {
        std::vector<float> values(32, 127);
        const float middle = static_cast<float>(half) + 0.5f;
        values[7] = sign * (offset == 0 ? middle : std::nextafter(middle, middle + offset));
        const std::vector<std::byte> block = encode(kFormats[2], values);
        EXPECT_EQ(static_cast<int8_t>(block[2 + 7]), std::round(values[7])) << values[7];
      }
}

}  // namespace
}  // namespace lapidary
