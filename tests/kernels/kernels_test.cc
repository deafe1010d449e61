// Every vector table against the definition, within derived bounds; the vector tables against each
// other, and a batch against its rows, bit for bit.
#include "kernels/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/float16.h"
#include "kernels/bounds.h"
#include "kernels/cases.h"
#include "kernels/ref/ref.h"

namespace lapidary {
namespace {

std::string describe(const WeightMatrix& w) {
  return format_name(w) + " " + std::string(name_of(w.dtype)) + " cols " + std::to_string(w.cols);
}

TEST(Kernels, RefAndEveryTableOfThisMachineAreListedSlowestFirst) {
  ASSERT_GE(supported_kernels().size(), 1u);
  EXPECT_EQ(supported_kernels().front()->isa, "ref");
}

TEST(Kernels, MatmulIsWithinItsRoundingBoundOfTheDefinition) {
  constexpr int64_t kRows = 21;
  for (const TestMatrix& m : all_formats(kRows)) {
    const WeightMatrix& w = m.view;
    constexpr int64_t kTokens = 9;
    const std::vector<float> x = random_floats(kTokens * w.cols, 2);
    const std::vector<float> expected = product(ref::kernels(), w, x.data(), kTokens, kRows);
    for (const Kernels* table : tables_under_test(&Kernels::matmul)) {
      const std::vector<float> got = product(*table, w, x.data(), kTokens, kRows);
      for (int64_t t = 0; t < kTokens; ++t)
        for (int64_t n = 0; n < kRows; ++n) {
          double magnitude = 0;
          for (int64_t k = 0; k < w.cols; ++k)
            magnitude +=
                std::abs(double{x[static_cast<size_t>(t * w.cols + k)]} * ref::weight_at(w, n, k));
          const auto i = static_cast<size_t>(t * kRows + n);
          ASSERT_TRUE(within(got[i], expected[i], dot_bound(w.cols) * magnitude))
              << table->isa << " " << describe(w) << " token " << t << " row " << n;
        }
    }
  }
}

TEST(Kernels, MatmulGivesARowTheSameBitsInEveryBatchSplitAndInstructionSet) {
  constexpr int64_t kRows = 21;
  for (const TestMatrix& m : all_formats(kRows)) {
    const WeightMatrix& w = m.view;
    constexpr int64_t kTokens = 55;  // more than one group
    const std::vector<float> x = random_floats(kTokens * w.cols, 2);
    std::vector<float> alone;  // by the first vector table, token by token
    for (const Kernels* table : tables_under_test(&Kernels::matmul)) {
      if (table->isa == "ref") continue;
      if (alone.empty())
        for (int64_t t = 0; t < kTokens; ++t) {
          const auto y = product(*table, w, x.data() + t * w.cols, 1, kRows);
          alone.insert(alone.end(), y.begin(), y.end());
        }
      for (int64_t tokens : {1, 2, 3, 4, 6, 7, 17, 55})
        for (int64_t split : {1, 5, 21}) {
          const auto y = product(*table, w, x.data(), tokens, split);
          ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0)
              << table->isa << " " << describe(w) << " tokens " << tokens << " split " << split;
        }
    }
  }
}

TEST(Kernels, ActivationsAreRoundedAlikeOnEveryInstructionSet) {
  for (const TestMatrix& m : quantized_formats(1)) {
    const WeightMatrix& w = m.view;
    std::vector<float> x = random_floats(3 * w.cols, 2);
    std::fill(x.begin(), x.begin() + 64, 0.0f);
    x[static_cast<size_t>(w.cols) + 5] = 300;
    const Rounded expected(ref::kernels(), w, x.data(), 3);
    for (int64_t t = 0; t < 3; ++t)
      for (int64_t k = 0; k < w.cols; ++k) {
        const int64_t cell = k / kQuantBlock * 3 + t;
        const int64_t unit = k % kQuantBlock / kQuantUnit * kQuantUnit;
        const double step = expected.steps[static_cast<size_t>(cell)];
        const double back = step * expected.codes[static_cast<size_t>(
                                       cell * kQuantBlock + unit +
                                       unit_position(expected.view.bits, w.group, k % kQuantUnit))];
        ASSERT_TRUE(within(back, x[static_cast<size_t>(t * w.cols + k)], step * 0.50001))
            << describe(w) << " token " << t << " column " << k;
      }
    for (const Kernels* table : tables_under_test(&Kernels::quantize)) {
      const Rounded got(*table, w, x.data(), 3);
      ASSERT_EQ(got.codes, expected.codes) << table->isa << " " << describe(w);
      ASSERT_EQ(got.steps, expected.steps) << table->isa << " " << describe(w);
      ASSERT_EQ(got.sums, expected.sums) << table->isa << " " << describe(w);
    }
  }
}

TEST(Kernels, QuantizedMatmulIsWithinItsRoundingBoundOfTheDefinition) {
  constexpr int64_t kRows = 77, kTokens = 14;
  for (const TestMatrix& m : quantized_formats(kRows)) {
    const WeightMatrix& w = m.view;
    std::vector<float> x = random_floats(kTokens * w.cols, 2);
    const Rounded rounded(ref::kernels(), w, x.data(), kTokens);
    const auto expected = quantized_product(ref::kernels(), w, rounded.view, kRows);
    for (const Kernels* table : tables_under_test(&Kernels::quantized_matmul)) {
      const auto got = quantized_product(*table, w, rounded.view, kRows);
      for (int64_t t = 0; t < kTokens; ++t)
        for (int64_t n = 0; n < kRows; ++n) {
          double magnitude = 0;  // of the terms scale * dot and bias * sum, over all groups
          for (int64_t k = 0; k < w.cols; ++k) {
            const ref::CodedWeight c = ref::coded_weight_at(w, n, k);
            magnitude += std::abs(double{x[static_cast<size_t>(t * w.cols + k)]}) * 1.01 *
                         (std::abs(c.scale) * c.code + std::abs(c.bias));
          }
          const double blocks = static_cast<double>(rounded.view.blocks());
          const double rounding_of_codes = blocks * 0.01 * magnitude;  // |code| may be up by a half
          const auto i = static_cast<size_t>(t * kRows + n);
          ASSERT_TRUE(
              within(got[i], expected[i],
                     chain_bound(2 * kQuantGroups + blocks) * (magnitude + rounding_of_codes)))
              << table->isa << " " << describe(w) << " token " << t << " row " << n;
        }
    }
  }
}

TEST(Kernels, QuantizedMatmulGivesARowTheSameBitsInEveryBatchSplitAndInstructionSet) {
  constexpr int64_t kRows = 77, kTokens = 29;
  for (const TestMatrix& m : quantized_formats(kRows)) {
    const WeightMatrix& w = m.view;
    const std::vector<float> x = random_floats(kTokens * w.cols, 2);
    std::vector<float> alone;  // by the first vector table, token by token
    for (const Kernels* table : tables_under_test(&Kernels::quantized_matmul)) {
      if (table->isa == "ref") continue;
      if (alone.empty())
        for (int64_t t = 0; t < kTokens; ++t) {
          const Rounded one(*table, w, x.data() + t * w.cols, 1);
          const auto y = quantized_product(*table, w, one.view, kRows);
          alone.insert(alone.end(), y.begin(), y.end());
        }
      for (int64_t tokens : {1, 2, 3, 4, 5, 13, 29}) {
        const Rounded rounded(*table, w, x.data(), tokens);
        for (int64_t split : {7, 32, 77}) {
          const auto y = quantized_product(*table, w, rounded.view, split);
          ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0)
              << table->isa << " " << describe(w) << " tokens " << tokens << " split " << split;
        }
      }
    }
  }
}

TEST(Kernels, DequantizeEqualsTheDefinition) {
  for (const TestMatrix& m : all_formats(3)) {
    const WeightMatrix& w = m.view;
    for (const Kernels* table : tables_under_test(&Kernels::dequantize))
      for (int64_t first = 0; first < w.cols; first += kDequantizeUnit) {
        std::vector<float> out(static_cast<size_t>(w.cols), NAN);
        const int64_t last = first == 0 ? w.cols : std::min(first + kDequantizeUnit, w.cols);
        table->dequantize(w, 2, first, last, out.data());
        for (int64_t k = 0; k < w.cols; ++k) {
          const float got = out[static_cast<size_t>(k)];
          if (k < last - first)
            ASSERT_EQ(got, ref::weight_at(w, 2, first + k)) << table->isa << " " << describe(w);
          else
            ASSERT_TRUE(std::isnan(got)) << table->isa << " " << describe(w);
        }
      }
  }
}

TEST(Kernels, RmsNorm) {
  for (int64_t n : {1, 16, 31, 640, 1152}) {
    const auto x = random_floats(n, 1, 3), weight = random_floats(n, 2);
    std::vector<float> expected(x.size()), got(x.size());
    ref::kernels().rms_norm(x.data(), weight.data(), 1e-6f, n, expected.data());
    for (const Kernels* table : tables_under_test(&Kernels::rms_norm)) {
      table->rms_norm(x.data(), weight.data(), 1e-6f, n, got.data());
      for (size_t i = 0; i < x.size(); ++i)  // the root halves the sum's error; then 5 roundings
        ASSERT_TRUE(within(got[i], expected[i],
                           std::abs(expected[i]) * (dot_bound(n) / 2 + chain_bound(5))))
            << table->isa << " n " << n;
    }
  }
}

TEST(Kernels, GeluMul) {
  std::vector<float> x;
  for (float v = -12; v <= 12; v += 0.0371f) x.push_back(v);
  x.insert(x.end(), {0.0f, -0.0f, 1e-30f, -60.0f, 60.0f, 1e6f, -1e6f});
  const auto up = random_floats(static_cast<int64_t>(x.size()), 3);
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> expected = x;
  ref::kernels().gelu_mul(expected.data(), up.data(), n);
  for (const Kernels* table : tables_under_test(&Kernels::gelu_mul)) {
    std::vector<float> got = x;
    table->gelu_mul(got.data(), up.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      // e^-2u: the relative error of the argument times its size, 4 for exp, and 6 roundings.
      const double u = 0.79788456 * (x[i] + 0.044715 * std::pow(double{x[i]}, 3));
      const double bound = (4 * std::min(std::abs(2 * u), 90.0) + 10) * kEps;
      // The definition's 1 + tanh u cancels where it nears 0: off by a unit of double at 1.
      const double floor = 0x1p-52 * std::abs(double{x[i]} * up[i]);
      ASSERT_TRUE(within(got[i], expected[i], std::abs(expected[i]) * bound + floor))
          << table->isa << " x " << x[i];
    }
  }
}

TEST(Kernels, Softcap) {
  std::vector<float> x;
  for (float v = -400; v <= 400; v += 0.73f) x.push_back(v);
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> expected = x;
  ref::kernels().softcap(expected.data(), n, 30);
  for (const Kernels* table : tables_under_test(&Kernels::softcap)) {
    std::vector<float> got = x;
    table->softcap(got.data(), n, 30);
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(within(got[i], expected[i], 30 * 0x1p-22)) << table->isa << " x " << x[i];
  }
}

// Vectors' min and max are not std::min and std::max: which of two a NaN gives is up to their
// order.
TEST(Kernels, ANaNStaysOne) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  for (const Kernels* table : tables_under_test(&Kernels::softcap)) {
    for (const size_t at : {size_t{3}, size_t{17}}) {
      std::vector<float> capped(19, 1), gate(19, 1), scores(19, 1);
      const std::vector<float> up(19, 1);
      capped[at] = gate[at] = scores[at] = kNaN;
      table->softcap(capped.data(), 19, 30);
      table->gelu_mul(gate.data(), up.data(), 19);
      for (size_t i = 0; i < capped.size(); ++i) {
        EXPECT_EQ(std::isnan(capped[i]), i == at) << table->isa;
        EXPECT_EQ(std::isnan(gate[i]), i == at) << table->isa;
      }
      EXPECT_TRUE(std::isnan(table->softmax(scores.data(), 19))) << table->isa;
      EXPECT_TRUE(std::ranges::all_of(scores, [](float p) { return std::isnan(p); })) << table->isa;
    }
  }
}

TEST(Kernels, AttendIsWithinItsRoundingBoundOfTheDefinition) {
  for (const AttentionCase& c : attention_cases()) {
    const auto expected = c.run(ref::kernels(), 0, kAttendRows);
    for (const Kernels* table : tables_under_test(&Kernels::attend)) {
      const auto got = c.run(*table, 0, kAttendRows);
      const auto pieces = c.run_in_pieces(*table, 0, kAttendRows);
      for (size_t i = 0; i < got.size(); ++i) {
        // |q| and |k| entries stay below 7 and 3.5: a score's error is at most dot_bound times
        // their products, plus the cap's; weights err by e^error twice (numerator, denominator),
        // plus exp and the sums; values stay below 3.5.
        const double score =
            dot_bound(c.head_dim) * 7 * 3.5 * c.head_dim * 0.17 + (c.softcap > 0 ? 5 * 0x1p-22 : 0);
        const double bound = 3.5 * (2 * score + chain_bound(20 + double(c.positions) / 16 + 70));
        ASSERT_TRUE(within(got[i], expected[i], bound))
            << table->isa << " dim " << c.head_dim << " length " << c.positions;
        ASSERT_TRUE(within(pieces[i], expected[i], bound))
            << table->isa << " dim " << c.head_dim << " length " << c.positions << " in pieces";
      }
    }
  }
}

TEST(Kernels, AttendGivesARowTheSameBitsAloneAndTogetherOnEveryInstructionSet) {
  for (const AttentionCase& c : attention_cases()) {
    std::vector<float> alone;
    for (const Kernels* table : tables_under_test(&Kernels::attend)) {
      if (table->isa == "ref") continue;
      if (alone.empty())
        for (int r = 0; r < kAttendRows; ++r) {
          const auto row = c.run(*table, r, 1);
          alone.insert(alone.end(), row.begin(), row.end());
        }
      for (int rows : {1, 2, 3, 4, 7, 16})
        for (int from = 0; from + rows <= kAttendRows; from += rows) {
          for (const auto& got : {c.run(*table, from, rows), c.run_in_pieces(*table, from, rows)})
            ASSERT_EQ(std::memcmp(got.data(), alone.data() + from * c.head_dim,
                                  got.size() * sizeof(float)),
                      0)
                << table->isa << " dim " << c.head_dim << " length " << c.positions << " rows "
                << rows;
        }
    }
  }
}

}  // namespace
}  // namespace lapidary
