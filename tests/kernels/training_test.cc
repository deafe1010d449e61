// What training adds to the kernel tables.
#include <array>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/bounds.h"
#include "kernels/cases.h"

namespace lapidary {
namespace {

// [n, k] of i_stride 1 in panels of `width`, each [k, width], filled up with ones.
std::vector<float> packed(const std::vector<float>& values, int64_t n, int64_t k, int64_t width) {
  std::vector<float> out;
  for (int64_t first = 0; first < n; first += width)
    for (int64_t j = 0; j < k; ++j)
      for (int64_t i = first; i < first + width; ++i)
        out.push_back(i < n ? values[static_cast<size_t>(j * n + i)] : 1);
  return out;
}

TEST(Gemm, IsOneChainOfFusedMultiplyAddsAndTouchesNothingElse) {
  for (const Kernels* table : tables_under_test(&Kernels::gemm)) {
    for (const auto& [rows, cols, depth] :
         {std::array<int64_t, 3>{1, 1, 1},
          {table->gemm_rows, table->gemm_cols, 37},
          {2 * table->gemm_rows + 1, 2 * table->gemm_cols + 3, 64}})
      for (const bool add : {false, true}) {
        const int64_t stride = cols + 2;
        const auto a = random_floats(rows * depth, 1), b = random_floats(cols * depth, 2);
        const auto before = random_floats((rows + 1) * stride, 3);
        auto c = before;
        const auto pa = packed(a, rows, depth, table->gemm_rows);
        const auto pb = packed(b, cols, depth, table->gemm_cols);
        table->gemm({.a = pa.data(),
                     .b = pb.data(),
                     .rows = rows,
                     .cols = cols,
                     .depth = depth,
                     .c = c.data(),
                     .stride = stride,
                     .add = add});
        for (int64_t i = 0; i <= rows; ++i)
          for (int64_t j = 0; j < stride; ++j) {
            const auto at = static_cast<size_t>(i * stride + j);
            float expected = before[at];
            double magnitude = std::abs(expected);
            if (i < rows && j < cols) {
              if (!add) expected = 0;
              for (int64_t k = 0; k < depth; ++k) {
                const float x = a[static_cast<size_t>(k * rows + i)];
                const float y = b[static_cast<size_t>(k * cols + j)];
                expected = std::fma(x, y, expected);
                magnitude += std::abs(double{x} * y);
              }
            }
            if (table->isa == "ref") {
              ASSERT_TRUE(
                  within(c[at], expected, chain_bound(static_cast<double>(depth) + 1) * magnitude));
            } else {
              ASSERT_EQ(c[at], expected) << table->isa << " " << i << ", " << j << " of " << rows
                                         << " x " << cols << " x " << depth;
            }
          }
      }
  }
}

TEST(Softmax, SumsUpToOneAndReturnsTheLogOfTheSum) {
  for (const Kernels* table : tables_under_test(&Kernels::softmax))
    for (const int64_t n : {1, 15, 16, 17, 4999}) {
      const auto x = random_floats(n, 5, 4);
      double total = 0;
      for (const float value : x) total += std::exp(double{value});
      auto p = x;
      // e^x to 2 ulp, sums of 128 of these a lane, and the scale.
      constexpr double kBound = (2 * 2 + 128 + 8) * kEps;
      EXPECT_TRUE(within(table->softmax(p.data(), n), std::log(total), kBound + 1e-7));
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = std::exp(double{x[i]}) / total;
        // The exponent itself is rounded: |x - max| < 40.
        ASSERT_TRUE(within(p[i], expected, (kBound + 40 * kEps) * expected)) << table->isa;
      }
    }
}

TEST(Softmax, LargeAndEqualScores) {
  for (const Kernels* table : tables_under_test(&Kernels::softmax)) {
    std::vector<float> same(20, 1e30f), one(20, -1e30f);
    one[17] = 1e30f;
    table->softmax(same.data(), 20);
    table->softmax(one.data(), 20);
    for (size_t i = 0; i < same.size(); ++i) {
      EXPECT_FLOAT_EQ(same[i], 0.05f) << table->isa;
      EXPECT_NEAR(one[i], i == 17 ? 1 : 0, 1e-30) << table->isa;
    }
  }
}

TEST(GeluMulBackward, IsTheDerivativeByCentralDifferences) {
  const auto gelu = [](double x) {
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  };
  constexpr int64_t n = 131;
  const auto gate = random_floats(n, 1, 3), up = random_floats(n, 2), d = random_floats(n, 3);
  for (const Kernels* table : tables_under_test(&Kernels::gelu_mul_backward)) {
    auto d_gate = d;
    auto d_up = random_floats(n, 4);
    const auto before = d_up;
    table->gelu_mul_backward(gate.data(), up.data(), d_gate.data(), d_up.data(), n);
    for (size_t i = 0; i < gate.size(); ++i) {
      constexpr double h = 1e-5;  // the error of the difference is below 1e-9
      const double x = gate[i], slope = (gelu(x + h) - gelu(x - h)) / (2 * h);
      // A dozen operations on values up to |x|, e^-2u among them.
      const double bound = 1e-8 + 40 * kEps * (1 + std::abs(x));
      ASSERT_TRUE(within(d_gate[i], d[i] * slope * up[i], bound * std::abs(double{d[i]} * up[i])))
          << table->isa << " at " << x;
      ASSERT_TRUE(within(d_up[i], before[i] + d[i] * gelu(x),
                         bound * (std::abs(double{d[i]} * x) + std::abs(before[i]))))
          << table->isa << " at " << x;
    }
  }
}

}  // namespace
}  // namespace lapidary
