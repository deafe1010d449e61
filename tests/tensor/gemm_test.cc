// Products of matrices, shared out to threads: of f32, and of operands rounded to bf16.
#include "tensor/gemm.h"

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/bounds.h"
#include "kernels/cases.h"

namespace lapidary {
namespace {

// Sizes beyond the blocks that are packed at once and the tasks of a thread, in each direction.
constexpr std::array<int64_t, 3> kSizes[] = {{1, 1, 1}, {37, 45, 1330}, {300, 133, 67}};

float rounded(Operands operands, float x) {
  return operands == Operands::kFloat ? x : to_float(to_bfloat16(x));
}

// The tables that multiply such operands.
std::vector<const Kernels*> tables(Operands operands) {
  return operands == Operands::kFloat ? tables_under_test(&Kernels::gemm)
                                      : tables_under_test(&Kernels::gemm_bf16);
}

struct GemmCase {
  Operands operands;
  int64_t rows, cols, depth;
  std::vector<float> a, b, c;  // [rows, depth], [depth, cols], [rows, cols]

  GemmCase(Operands operands_in, const std::array<int64_t, 3>& size)
      : operands(operands_in),
        rows(size[0]),
        cols(size[1]),
        depth(size[2]),
        a(random_floats(rows * depth, 1)),
        b(random_floats(depth * cols, 2)),
        c(random_floats(rows * cols, 3)) {}

  // Of rounded operands in double, and with it how far f32 may be off: one chain over k, or in each
  // step of 32 two chains of 16 and their sum, and the chain of the steps.
  void expect(const std::vector<float>& got, bool add, const std::string& what) const {
    const auto n = static_cast<double>(depth);
    const double bound =
        chain_bound(operands == Operands::kFloat ? n + 1 : 17 + std::ceil(n / 32) + 1);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const auto at = static_cast<size_t>(i * cols + j);
        double expected = add ? c[at] : 0, magnitude = std::abs(expected);
        for (int64_t k = 0; k < depth; ++k) {
          const double x = rounded(operands, a[static_cast<size_t>(i * depth + k)]);
          const double y = rounded(operands, b[static_cast<size_t>(k * cols + j)]);
          expected += x * y;
          magnitude += std::abs(x * y);
        }
        ASSERT_TRUE(within(got[at], expected, bound * magnitude))
            << what << " " << i << ", " << j << " of " << rows << " x " << cols << " x " << depth;
      }
  }
};

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t cols) {
  std::vector<float> out;
  for (int64_t j = 0; j < cols; ++j)
    for (int64_t i = 0; i < rows; ++i) out.push_back(values[static_cast<size_t>(i * cols + j)]);
  return out;
}

class GemmTest : public ::testing::TestWithParam<Operands> {};

TEST_P(GemmTest, IsTheProductHoweverTheOperandsLie) {
  for (const Kernels* table : tables(GetParam()))
    for (const auto& size : kSizes)
      for (const bool turned : {false, true})
        for (const Into into : {Into::kOverwrite, Into::kAdd}) {
          const GemmCase p(GetParam(), size);
          const auto a = turned ? transposed(p.a, p.rows, p.depth) : p.a;
          const auto b = turned ? transposed(p.b, p.depth, p.cols) : p.b;
          const Strided left = turned ? Strided(a.data(), p.depth, p.rows, p.rows).transposed()
                                      : Strided(a.data(), p.rows, p.depth, p.depth);
          const Strided right = turned ? Strided(b.data(), p.cols, p.depth, p.depth).transposed()
                                       : Strided(b.data(), p.depth, p.cols, p.cols);
          std::vector<float> got[2] = {p.c, p.c};
          for (const int threads : {1, 3}) {
            Executor ex(*table, threads);
            ex.operands = GetParam();
            gemm(ex, left, right, {got[threads > 1].data(), p.cols}, into);
          }
          EXPECT_EQ(got[0], got[1]) << table->isa << " by 1 thread and by 3";
          p.expect(got[0], into == Into::kAdd, std::string(table->isa));
        }
}

// y = x wᵀ and dx += dy w, of weights as they are stored: more of them than are decoded at once.
TEST_P(GemmTest, StoredWeightsAreDecodedRowByRow) {
  constexpr int64_t kTokens = 5, kRows = 1300, kCols = 4160;
  const TestMatrix w(kRows, kCols, DType::kBF16, 4, 64);
  std::vector<float> decoded(kRows * kCols);
  for (const Kernels* table : tables(GetParam())) {
    for (int64_t n = 0; n < kRows; ++n)
      table->dequantize_row(w.view, n, decoded.data() + n * kCols);
    Executor ex(*table, 2);
    ex.operands = GetParam();
    GemmCase forward(GetParam(), {kTokens, kRows, kCols});
    forward.b = transposed(decoded, kRows, kCols);
    std::vector<float> y = forward.c;
    gemm_rows(ex, {forward.a.data(), kTokens, kCols}, w.view, {y.data(), kTokens, kRows});
    forward.expect(y, false, std::string(table->isa) + " forward");
    GemmCase backward(GetParam(), {kTokens, kCols, kRows});
    backward.b = decoded;
    std::vector<float> dx = backward.c;
    gemm_cols(ex, {backward.a.data(), kTokens, kRows}, w.view, {dx.data(), kTokens, kCols});
    backward.expect(dx, true, std::string(table->isa) + " backward");
  }
}

// However many share a, and whatever the format that b is decoded from: panels and blocks of it
// that begin within those of the file.
TEST_P(GemmTest, ProductsOfTheSameAreThoseOfDecodedWeightsToTheBit) {
  constexpr int64_t kTokens = 7, kRows = 1300;
  for (const BlockFormat& format : kBlockFormats) {
    const int64_t cols = 5 * std::max<int64_t>(format.cols, 128);
    const TestMatrix w = block_test_matrix(format, kRows, cols);
    std::vector<float> decoded(static_cast<size_t>(kRows * cols));
    const auto x = random_floats(kTokens * cols, 1), dy = random_floats(kTokens * kRows, 2);
    const Strided left(x.data(), kTokens, cols, cols), back(dy.data(), kTokens, kRows, kRows);
    for (const Kernels* table : tables(GetParam())) {
      for (int64_t n = 0; n < kRows; ++n)
        table->dequantize_row(w.view, n, decoded.data() + n * cols);
      const Strided values(decoded.data(), kRows, cols, cols);
      Executor ex(*table, 2);
      ex.operands = GetParam();
      const auto product = [&](Strided a, const RightSide& b, bool beside) {
        std::vector<float> c(static_cast<size_t>(kTokens * b.cols()), 0.5f), other(c.size(), 0.5f);
        const RightProduct both[] = {{b, {c.data(), b.cols()}, Into::kAdd},
                                     {b, {other.data(), b.cols()}, Into::kOverwrite}};
        gemm(ex, a, beside ? both : std::span(both, 1));
        if (beside) c.insert(c.end(), other.begin(), other.end());
        return c;
      };
      const auto forward = product(left, values.transposed(), true);
      EXPECT_EQ(product(left, RightSide(w.view).transposed(), true), forward) << table->isa;
      EXPECT_EQ(product(left, values.transposed(), false),
                std::vector<float>(forward.begin(), forward.begin() + kTokens * kRows));
      EXPECT_EQ(product(back, w.view, false), product(back, values, false)) << table->isa;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Operands, GemmTest,
                         ::testing::Values(Operands::kFloat, Operands::kBFloat16),
                         [](const auto& test) {
                           return test.param == Operands::kFloat ? "f32" : "bf16";
                         });

}  // namespace
}  // namespace lapidary
