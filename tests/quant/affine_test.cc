#include "quant/affine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/float16.h"
#include "base/rng.h"
#include "io/safetensors.h"
#include "kernels/kernels.h"

namespace lapidary {
namespace {

struct Encoded {
  std::vector<std::byte> codes, scales, biases;
};

Encoded encode(std::span<const float> values, const AffineFormat& format) {
  const auto n = static_cast<int64_t>(values.size());
  Encoded e;
  e.codes.resize(static_cast<size_t>(format.code_bytes(n)));
  e.scales.resize(static_cast<size_t>(format.scale_bytes(n)));
  e.biases.resize(e.scales.size());
  affine_encode(values, format, {e.codes.data(), e.scales.data(), e.biases.data()});
  return e;
}

std::vector<float> floats(const TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    const std::byte* at = view.bytes.data() + i * static_cast<size_t>(size_of(view.dtype));
    uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);
    if (view.dtype == DType::kF32)
      std::memcpy(&values[i], at, sizeof(float));
    else
      values[i] = view.dtype == DType::kF16 ? to_float(Float16{bits}) : to_float(BFloat16{bits});
  }
  return values;
}

bool equal(const std::vector<std::byte>& ours, const TensorView& theirs) {
  return ours.size() == theirs.bytes.size() &&
         std::memcmp(ours.data(), theirs.bytes.data(), ours.size()) == 0;
}

// Every width, group size and dtype, on rows that are normal, all positive, all negative, full of
// ties, zero, constant, tiny and huge: the very bytes that MLX writes.
TEST(AffineEncode, EqualsMlx) {
  const auto golden =
      SafetensorsFile::open(LAPIDARY_SOURCE_DIR "/tests/golden/mlx_encode.safetensors");
  for (const auto& [name, dtype] :
       {std::pair{"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}}) {
    const TensorView* values = golden.find(fmt::format("{}.values", name));
    ASSERT_NE(values, nullptr);
    ASSERT_EQ(values->dtype, dtype);
    for (const int bits : {2, 3, 4, 5, 6, 8}) {
      for (const int group : {32, 64, 128}) {
        const std::string at = fmt::format("{}.b{}.g{}", name, bits, group);
        SCOPED_TRACE(at);
        const Encoded ours = encode(floats(*values), {bits, group, dtype});
        EXPECT_TRUE(equal(ours.codes, *golden.find(at + ".weight")));
        EXPECT_TRUE(equal(ours.scales, *golden.find(at + ".scales")));
        EXPECT_TRUE(equal(ours.biases, *golden.find(at + ".biases")));
      }
    }
  }
}

// What the kernels read back differs by half a step, except that bending the scale to make zero a
// code can cost the end away from the edge up to half a step more.
TEST(AffineEncode, RoundTripIsWithinAStep) {
  const CounterRng rng(3);
  std::vector<float> values(4 * 128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    SCOPED_TRACE(bits);
    const AffineFormat format{bits, 64, DType::kF32};
    const Encoded e = encode(values, format);
    WeightMatrix m{.rows = 4, .cols = 128, .dtype = DType::kF32, .data = e.codes.data()};
    m.format = WeightFormat::kAffine;
    m.bits = bits;
    m.group = 64;
    m.scales = e.scales.data();
    m.biases = e.biases.data();
    for (int64_t row = 0; row < 4; ++row) {
      float out[128];
      supported_kernels()[0]->dequantize_row(m, row, out);
      for (int i = 0; i < 128; ++i) {
        float scale;
        std::memcpy(&scale, &e.scales[static_cast<size_t>(row * 2 + i / 64) * 4], 4);
        const float error = std::abs(out[i] - values[static_cast<size_t>(row * 128 + i)]);
        EXPECT_TRUE(error <= std::abs(scale) * 1.001f) << i << ": " << error << " / " << scale;
      }
    }
  }
}

// What affine_search chose, and what affine_encode would have, decoded again.
struct SearchCase {
  std::vector<float> values, importance, searched, nearest;
};

SearchCase search_case(const AffineFormat& format, const std::vector<float>& values,
                       const std::vector<float>& importance) {
  const auto n = static_cast<int64_t>(values.size());
  const auto decoded = [&](const Encoded& e) {
    const WeightMatrix m{.rows = 1,
                         .cols = n,
                         .format = WeightFormat::kAffine,
                         .dtype = format.dtype,
                         .data = e.codes.data(),
                         .bits = format.bits,
                         .group = format.group,
                         .scales = e.scales.data(),
                         .biases = e.biases.data()};
    std::vector<float> out(values.size());
    supported_kernels()[0]->dequantize_row(m, 0, out.data());
    return out;
  };
  Encoded e = encode(values, format);
  SearchCase result{values, importance, {}, decoded(e)};
  affine_search(values, importance, format, {e.codes.data(), e.scales.data(), e.biases.data()});
  result.searched = decoded(e);
  return result;
}

double squares(const SearchCase& c, const std::vector<float>& found, bool weighted) {
  double sum = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = double{found[i]} - c.values[i];
    sum += error * error * (weighted ? c.importance[i] : 1);
  }
  return sum;
}

TEST(AffineSearch, IsNeverWorseAndUsuallyBetter) {
  constexpr size_t kValues = 128 * 40;
  const CounterRng rng(7);
  std::vector<float> values(kValues), importance(kValues);
  for (size_t i = 0; i < kValues; ++i) {
    values[i] = 0.02f * rng.normal(i) * (i % 97 == 0 ? 6.0f : 1.0f);
    importance[i] = static_cast<float>(std::exp(3 * rng.uniform(i + kValues)));
  }
  for (const int bits : {2, 3, 4, 5, 6, 8})
    for (const int group : {32, 64, 128})
      for (const DType dtype : {DType::kBF16, DType::kF32}) {
        const AffineFormat format{bits, group, dtype};
        double searched = 0, nearest = 0;
        for (size_t at = 0; at < kValues; at += static_cast<size_t>(group)) {
          const auto part = [&](const std::vector<float>& all) {
            return std::vector<float>(all.begin() + static_cast<long>(at),
                                      all.begin() + static_cast<long>(at) + group);
          };
          const SearchCase c = search_case(format, part(values), part(importance));
          const double mine = squares(c, c.searched, true), its = squares(c, c.nearest, true);
          // Sums in f32 of up to 128 terms in 8 lanes decide which is less.
          EXPECT_LE(mine, its * (1 + 4e-6)) << bits << " " << group << " " << at;
          const auto [low, high] = std::ranges::minmax(c.values);
          const double worst =
              affine_error_share(format) * (std::max(0.0f, high) - std::min(0.0f, low));
          EXPECT_LE(squares(c, c.searched, false), group * worst * worst);
          searched += mine;
          nearest += its;
        }
        EXPECT_LT(searched, (bits <= 4 ? 0.85 : 0.97) * nearest) << bits << " " << group;
      }
}

TEST(AffineSearch, TakesGroupsOfOneValue) {
  const std::vector<float> ones(64, 1.0f);
  for (const float value : {0.0f, 0.5f, -3.0f}) {
    const SearchCase c = search_case({3, 64, DType::kBF16}, std::vector<float>(64, value), ones);
    EXPECT_EQ(c.searched, c.values) << value;
  }
}

}  // namespace
}  // namespace lapidary
