// Products of operands rounded to bf16.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/bounds.h"
#include "kernels/cases.h"

namespace lapidary {
namespace {

// [n, depth], with values whose rounding is special at both ends of what is whole tiles.
std::vector<float> values_to_round(int64_t n, int64_t depth) {
  std::vector<float> values = random_floats(n * depth, 1);
  using Limits = std::numeric_limits<float>;
  const std::vector<float> special = {std::bit_cast<float>(0x7f800001u),  // NaNs whose top bits are
                                      std::bit_cast<float>(0xffffffffu),  // infinity's, and 0's
                                      Limits::infinity(),
                                      -Limits::infinity(),
                                      Limits::max(),
                                      -0.0f,
                                      Limits::denorm_min(),
                                      0x1.fffffp-127f,
                                      std::bit_cast<float>(0x3f808000u),  // ties
                                      std::bit_cast<float>(0x3f818000u),
                                      std::bit_cast<float>(0x3f817fffu)};
  for (size_t i = 0; i < special.size() && 2 * i + 1 < values.size(); ++i) {
    values[i] = special[i];
    values[values.size() - 1 - i] = special[i];
  }
  return values;
}

// The panels of [n, depth] as kernels.h describes them: in steps of 32 k, two tiles of 16 rows of
// 32 values, or of 16 pairs of 16 columns.
std::vector<uint16_t> packed(const std::vector<float>& values, Bf16Operand operand, int64_t n,
                             int64_t depth) {
  std::vector<uint16_t> out;
  const auto push = [&](int64_t i, int64_t k) {
    const bool there = i < n && k < depth;
    out.push_back(to_bfloat16(there ? values[static_cast<size_t>(i * depth + k)] : 0).bits);
  };
  for (int64_t panel = 0; panel < n; panel += 32)
    for (int64_t step = 0; step < depth; step += 32)
      for (int64_t tile = panel; tile < panel + 32; tile += 16)
        for (int64_t row = 0; row < 16; ++row)
          for (int64_t at = 0; at < 32; ++at)
            if (operand == Bf16Operand::kRows)
              push(tile + row, step + at);
            else
              push(tile + at / 2, step + 2 * row + at % 2);
  return out;
}

// Its values as they lie with other strides: [n, depth] with `gap` more after each row, or turned
// over.
struct Laid {
  std::vector<float> memory;
  int64_t stride, k_stride;
  Laid(const std::vector<float>& values, int64_t n, int64_t depth, int64_t gap, bool turned)
      : stride(turned ? 1 : depth + gap), k_stride(turned ? n + gap : 1) {
    memory.assign(static_cast<size_t>((n - 1) * stride + (depth - 1) * k_stride + 1), NAN);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < depth; ++k)
        memory[static_cast<size_t>(i * stride + k * k_stride)] =
            values[static_cast<size_t>(i * depth + k)];
  }
};

TEST(PackBf16, RoundsAndLaysOutAsTheTilesHaveItAndTouchesNothingElse) {
  for (const Kernels* table : tables_under_test(&Kernels::pack_bf16))
    for (const auto& [n, depth] : {std::array<int64_t, 2>{1, 1}, {16, 32}, {32, 64}, {75, 101}})
      for (const Bf16Operand operand : {Bf16Operand::kRows, Bf16Operand::kCols})
        for (const bool turned : {false, true}) {
          const std::vector<float> values = values_to_round(n, depth);
          const Laid laid(values, n, depth, 3, turned);
          const int64_t panels = (n + kBf16Panel - 1) / kBf16Panel;
          const int64_t panel = kBf16Panel * bf16_depth(depth);
          std::vector<uint16_t> expected = packed(values, operand, n, depth);
          std::vector<BFloat16> got(expected.size(), BFloat16{0xabcd});
          const int64_t first = panels > 1 ? 1 : 0, last = panels > 2 ? panels - 1 : panels;
          const auto pack = [&](int64_t from, int64_t to) {
            table->pack_bf16({.operand = operand,
                              .data = laid.memory.data(),
                              .count = n,
                              .depth = depth,
                              .stride = laid.stride,
                              .k_stride = laid.k_stride,
                              .first = from,
                              .last = to,
                              .out = got.data(),
                              .panel = panel});
          };
          pack(first, last);
          for (size_t i = 0; i < got.size(); ++i) {
            const auto at = static_cast<int64_t>(i) / panel;
            ASSERT_EQ(got[i].bits, at >= first && at < last ? expected[i] : 0xabcd)
                << table->isa << " " << i << " of " << n << " x " << depth;
          }
          pack(0, panels);
          for (size_t i = 0; i < got.size(); ++i)
            ASSERT_EQ(got[i].bits, expected[i])
                << table->isa << " " << i << " of " << n << " x " << depth << (turned ? "T" : "");
        }
}

TEST(GemmBf16, IsTheProductOfRoundedOperandsAndTouchesNothingElse) {
  for (const Kernels* table : tables_under_test(&Kernels::gemm_bf16))
    for (const auto& [rows, cols, depth] : {std::array<int64_t, 3>{1, 1, 1},
                                            {32, 32, 32},
                                            {32, 64, 96},
                                            {33, 31, 37},
                                            {69, 100, 301}})
      for (const bool add : {false, true}) {
        const int64_t stride = cols + 2;
        const auto a = random_floats(rows * depth, 1), b = random_floats(cols * depth, 2);
        const auto before = random_floats((rows + 1) * stride, 3);
        auto c = before;
        bf16_product(*table, a, b, rows, cols, depth, c, stride, add);
        // Products of bf16 are exact. Of AVX-512 one chain; of tiles two of 16 in each step, their
        // sum, and the steps.
        const auto steps = static_cast<double>(bf16_depth(depth) / kBf16Step);
        const double bound =
            chain_bound(table->isa.starts_with("avx512") ? kBf16Step * steps : 16 + 1 + steps);
        for (int64_t i = 0; i <= rows; ++i)
          for (int64_t j = 0; j < stride; ++j) {
            const auto at = static_cast<size_t>(i * stride + j);
            if (i == rows || j >= cols) {
              ASSERT_EQ(c[at], before[at]) << table->isa;
              continue;
            }
            double expected = add ? before[at] : 0, magnitude = std::abs(expected);
            for (int64_t k = 0; k < depth; ++k) {
              const double x = to_float(to_bfloat16(a[static_cast<size_t>(i * depth + k)]));
              const double y = to_float(to_bfloat16(b[static_cast<size_t>(j * depth + k)]));
              expected += x * y;
              magnitude += std::abs(x * y);
            }
            ASSERT_TRUE(within(c[at], expected, bound * magnitude))
                << table->isa << " " << i << ", " << j << " of " << rows << " x " << cols << " x "
                << depth;
          }
      }
}

TEST(GemmBf16, BlocksOfWholeStepsChangeNoBit) {
  for (const Kernels* table : tables_under_test(&Kernels::gemm_bf16)) {
    if (table->isa == "ref") continue;  // which rounds once for each block
    constexpr int64_t kRows = 20, kCols = 35, kDepth = 150, kFirst = 64;
    const auto a = random_floats(kRows * kDepth, 1), b = random_floats(kCols * kDepth, 2);
    const auto part = [](const std::vector<float>& all, int64_t first, int64_t last) {
      std::vector<float> some;
      for (int64_t i = 0; i < std::ssize(all); ++i)
        if (i % kDepth >= first && i % kDepth < last) some.push_back(all[static_cast<size_t>(i)]);
      return some;
    };
    std::vector<float> whole(kRows * kCols), parts(whole);
    bf16_product(*table, a, b, kRows, kCols, kDepth, whole, kCols, false);
    bf16_product(*table, part(a, 0, kFirst), part(b, 0, kFirst), kRows, kCols, kFirst, parts, kCols,
                 false);
    bf16_product(*table, part(a, kFirst, kDepth), part(b, kFirst, kDepth), kRows, kCols,
                 kDepth - kFirst, parts, kCols, true);
    EXPECT_EQ(parts, whole) << table->isa;
  }
}

// What the hardware does as Intel's manual has it, which the model of tiles follows: with the small
// numbers that count as 0 among the operands, the sums, and the products.
TEST(GemmBf16, SubnormalNumbersAreZeros) {
  for (const Kernels* table : tables_under_test(&Kernels::gemm_bf16)) {
    if (table->isa == "ref") continue;
    const float small = 0x1p-130f, large = 0x1p100f;
    std::vector<float> c = {small, small, small, small};
    bf16_product(*table, {small, 1}, {large, 1}, 2, 2, 1, c, 2, true);
    EXPECT_EQ(c, (std::vector<float>{0, 0, large, 1})) << table->isa;
    bf16_product(*table, {0x1p-70f}, {0x1p-60f}, 1, 1, 1, c, 2, false);
    EXPECT_EQ(c[0], 0) << table->isa;
  }
}

}  // namespace
}  // namespace lapidary
