// Q4_K and Q6_K against what ggml makes of the same blocks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "io/safetensors.h"
#include "quant/decode.h"
#include "quant/q4_k.h"
#include "quant/q6_k.h"
#include "quant/row_encoder.h"

namespace lapidary {
namespace {

struct Format {
  const char* name;
  int64_t block_bytes;
  void (*encode)(std::span<const float>, std::byte*);
  WeightFormat format;
  RowEncoder (*encoder)();
};
constexpr Format kFormats[] = {
    {"q4_k", kQ4KBlockBytes, q4_k_encode, WeightFormat::kQ4_K, q4_k_encoder},
    {"q6_k", kQ6KBlockBytes, q6_k_encode, WeightFormat::kQ6_K, q6_k_encoder}};

std::vector<float> floats(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

std::vector<float> round_trip(const Format& format, std::span<const float> values) {
  std::vector<std::byte> blocks(values.size() / 256 * static_cast<size_t>(format.block_bytes));
  format.encode(values, blocks.data());
  std::vector<float> decoded(values.size());
  decode_blocks(format.format, blocks, decoded.data());
  return decoded;
}

double squared_error(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum;
}

TEST(KBlocks, DecodingEqualsTheReference) {
  const auto golden = SafetensorsFile::open(LAPIDARY_SOURCE_DIR "/tests/golden/ggml_k.safetensors");
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const std::string name = format.name;
    const std::vector<float> expected = floats(*golden.find(name + ".values"));
    std::vector<float> decoded(expected.size());
    decode_blocks(format.format, golden.find(name)->bytes, decoded.data());
    EXPECT_EQ(decoded, expected);
  }
}

// The sum of squared errors, over the normal blocks together and of each odd one by itself.
TEST(KBlocks, EncodingIsAtLeastAsGoodAsTheReference) {
  constexpr size_t kNormal = size_t{48} * 256;
  const auto golden = SafetensorsFile::open(LAPIDARY_SOURCE_DIR "/tests/golden/ggml_k.safetensors");
  const std::vector<float> values = floats(*golden.find("values"));
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const std::vector<float> theirs = floats(*golden.find(std::string(format.name) + ".values"));
    const std::vector<float> ours = round_trip(format, values);
    const auto errors = [&](size_t first, size_t count) {
      const std::span all(values);
      return std::pair(
          squared_error(std::span(ours).subspan(first, count), all.subspan(first, count)),
          squared_error(std::span(theirs).subspan(first, count), all.subspan(first, count)));
    };
    const auto [ours_normal, theirs_normal] = errors(0, kNormal);
    EXPECT_LT(ours_normal, theirs_normal);
    RecordProperty(std::string(format.name) + "_error_ratio",
                   std::to_string(ours_normal / theirs_normal));
    for (size_t first = kNormal; first < values.size(); first += 256) {
      const auto [our_error, their_error] = errors(first, 256);
      EXPECT_LE(our_error, their_error * 1.02) << "block " << first / 256;
    }
  }
}

// What a conversion's check allows (RowEncoder::error_share), which the error of no block exceeds.
TEST(KBlocks, ErrorIsWithinTheShareOfTheRange) {
  const CounterRng rng(9);
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const double share = format.encoder().error_share;
    for (uint64_t block = 0; block < 200; ++block) {
      std::vector<float> values(256);
      const float spread = std::ldexp(1.0f, static_cast<int>(block % 20) - 10);
      for (size_t i = 0; i < 256; ++i) {
        values[i] = spread * rng.normal(block * 256 + i);
        if (block % 3 == 1) values[i] = std::abs(values[i]);
        if (block % 3 == 2) values[i] *= std::ldexp(1.0f, static_cast<int>(i / 32));
      }
      const double range = std::max(0.0f, *std::ranges::max_element(values)) -
                           std::min(0.0f, *std::ranges::min_element(values));
      EXPECT_LE(squared_error(round_trip(format, values), values), 256 * std::pow(share * range, 2))
          << block;
    }
  }
}

TEST(KBlocks, ZerosAndWhatIsTooSmallForAScale) {
  for (const Format& format : kFormats)
    for (const float tiny : {0.0f, 0x1p-149f, -0x1p-126f, 0x1p-40f}) {
      const std::vector<float> values(256, tiny);
      for (const float x : round_trip(format, values))
        EXPECT_TRUE(std::abs(x) <= 2 * std::abs(tiny)) << format.name << " " << tiny << " " << x;
    }
}

}  // namespace
}  // namespace lapidary
