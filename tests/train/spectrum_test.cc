#include "train/spectrum.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace lapidary {
namespace {

using Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

MatrixXd drawn(int64_t rows, int64_t cols, uint64_t stream) {
  const CounterRng rng(7, stream);
  MatrixXd m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = double{rng.normal(static_cast<uint64_t>(i))};
  return m;
}

Matrix view(RowMajor& m) {
  return {m.data(), m.rows(), m.cols()};
}

struct Shape {
  int64_t rows, cols;
};
class SpectrumTest : public ::testing::TestWithParam<Shape> {};

// Rounding the product to f32 adds a matrix whose entries are below 2^-24 of the product's, and the
// Gram matrix loses what is below 2^-26 sqrt(n).
TEST_P(SpectrumTest, IsThatOfEigensSvd) {
  const auto [rows, cols] = GetParam();
  RowMajor m = drawn(rows, cols, 1).cast<float>();
  const Eigen::VectorXd want = Eigen::JacobiSVD<MatrixXd>(m.cast<double>()).singularValues();
  const std::vector<double> got = singular_values(view(m));
  ASSERT_EQ(std::ssize(got), want.size());
  for (int64_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[static_cast<size_t>(i)], want[i], 1e-7 * want[0]) << i;
}

TEST_P(SpectrumTest, OfAProductHasTheRankOfItsFactors) {
  const auto [rows, cols] = GetParam();
  for (const int64_t rank : {1, 3, 7}) {
    RowMajor m = (drawn(rows, rank, 2) * drawn(rank, cols, 3)).cast<float>();
    const std::vector<double> values = singular_values(view(m));
    EXPECT_EQ(numerical_rank(values, 0x1p-23 * 300 * values[0]), rank);
    EXPECT_LE(effective_rank(values), static_cast<double>(rank) + 0.01);
    EXPECT_LE(stable_rank(values), effective_rank(values));
  }
}

TEST_P(SpectrumTest, TheLargestPartsMakeUpAMatrixOfLowRank) {
  const auto [rows, cols] = GetParam();
  RowMajor m = (drawn(rows, 5, 4) * drawn(5, cols, 5)).cast<float>();
  const SingularParts parts = largest_parts(view(m), 5);
  ASSERT_EQ(parts.u.rows(), rows);
  ASSERT_EQ(parts.v.rows(), cols);
  const MatrixXd again = parts.u * parts.values.asDiagonal() * parts.v.transpose();
  EXPECT_LE((again - m.cast<double>()).norm(), 1e-6 * parts.values[0]);
  EXPECT_LE((parts.u.transpose() * parts.u - MatrixXd::Identity(5, 5)).norm(), 1e-10);
  EXPECT_LE((parts.v.transpose() * parts.v - MatrixXd::Identity(5, 5)).norm(), 1e-10);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SpectrumTest,
                         ::testing::Values(Shape{300, 40}, Shape{40, 300}, Shape{64, 64}),
                         [](const auto& test) {
                           return std::to_string(test.param.rows) + "x" +
                                  std::to_string(test.param.cols);
                         });

TEST(Spectrum, OfFactorsIsThatOfTheirProduct) {
  AdapterMatrix m{.target = "q", .rank = 6, .scale = 2.5};
  m.a.resize(6 * 50);
  m.b.resize(6 * 90);
  const CounterRng rng(3, 1);
  for (size_t i = 0; i < m.a.size(); ++i) m.a[i] = rng.normal(i);
  for (size_t i = 0; i < m.b.size(); ++i) m.b[i] = rng.normal(1000 + i);
  const Term terms[] = {{&m, 1}};
  const SingularParts parts = singular_parts(side_by_side(terms));
  const MatrixXd dense = m.scale * matrix_b(m) * matrix_a(m);
  const Eigen::VectorXd want = Eigen::JacobiSVD<MatrixXd>(dense).singularValues();
  ASSERT_EQ(parts.values.size(), 6);
  for (int64_t i = 0; i < 6; ++i) EXPECT_NEAR(parts.values[i], want[i], 1e-12 * want[0]);
  EXPECT_LE((parts.u * parts.values.asDiagonal() * parts.v.transpose() - dense).norm(),
            1e-12 * want[0]);
}

TEST(Ranks, OfEqualValuesIsTheirNumber) {
  const std::vector<double> four{2, 2, 2, 2, 0}, one{5}, none{0, 0};
  EXPECT_NEAR(effective_rank(four), 4, 1e-12);
  EXPECT_NEAR(stable_rank(four), 4, 1e-12);
  EXPECT_EQ(numerical_rank(four, 1), 4);
  EXPECT_EQ(effective_rank(one), 1);
  EXPECT_EQ(effective_rank(none), 0);
  EXPECT_EQ(stable_rank(none), 0);
  EXPECT_EQ(numerical_rank(none, 0), 0);
  // -(3/4 ln 3/4 + 1/4 ln 1/4) = 0.56233514...
  const std::vector<double> uneven{3, 1};
  EXPECT_NEAR(effective_rank(uneven), std::exp(0.5623351446188083), 1e-12);
  EXPECT_NEAR(stable_rank(uneven), 10.0 / 9, 1e-12);
}

TEST(Angles, OfSubspaces) {
  const MatrixXd basis = MatrixXd::Identity(10, 10);
  const MatrixXd first = basis.leftCols(3), mixed = first * drawn(3, 3, 6);
  EXPECT_NEAR(*mean_angle(first, mixed), 0, 1e-5);
  EXPECT_NEAR(*mean_angle(first, basis.middleCols(1, 2)), 0, 1e-5);  // held by it
  EXPECT_NEAR(*mean_angle(first, basis.middleCols(3, 3)), 90, 1e-9);
  EXPECT_NEAR(*mean_angle(basis.leftCols(2), basis.middleCols(1, 2)), 45, 1e-9);
  MatrixXd turned = basis.leftCols(1);  // by 30 degrees
  turned(0, 0) = std::sqrt(0.75), turned(5, 0) = 0.5;
  EXPECT_NEAR(*mean_angle(basis.leftCols(1), turned), 30, 1e-9);
  EXPECT_FALSE(mean_angle(first, MatrixXd::Zero(10, 2)));
  EXPECT_FALSE(mean_angle(first.leftCols(0), first));
}

}  // namespace
}  // namespace lapidary
