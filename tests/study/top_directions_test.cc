#include "study/top_directions.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "train/spectrum.h"

namespace lapidary {
namespace {

using Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Normal values whose columns shrink: some strong directions before many of about one size.
RowMajor drawn(int64_t rows, int64_t cols, double tail) {
  const CounterRng rng(11);
  RowMajor m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = rng.normal(static_cast<uint64_t>(i));
  for (int64_t k = 0; k < cols; ++k)
    m.col(k) *= static_cast<float>(1 + 20 / (1.0 + static_cast<double>(k) * tail));
  return m;
}

double overlap(const MatrixXd& x, const MatrixXd& y) {
  double sum = 0;
  for (const double c : principal_cosines(x, y)) sum += c * c;
  return sum / static_cast<double>(x.cols());
}

struct Shape {
  int64_t rows, cols;
};
class TopDirections : public ::testing::TestWithParam<Shape> {};

// Products of f32 move a direction by some 2^-24 sqrt(cols) over its distance from the others.
TEST_P(TopDirections, AreThoseOfTheWholeSpectrum) {
  RowMajor m = drawn(GetParam().rows, GetParam().cols, 0.3);
  const Matrix view{m.data(), m.rows(), m.cols()};
  const SingularParts want = largest_parts(view, 8), got = top_directions(view, 8);
  ASSERT_EQ(got.values.size(), 8);
  ASSERT_EQ(got.u.rows(), m.rows());
  ASSERT_EQ(got.v.rows(), m.cols());
  for (int64_t i = 0; i < 8; ++i) EXPECT_NEAR(got.values[i] / want.values[i], 1, 1e-5);
  EXPECT_NEAR(overlap(got.u, want.u), 1, 1e-6);
  EXPECT_NEAR(overlap(got.v, want.v), 1, 1e-6);
}
INSTANTIATE_TEST_SUITE_P(Shapes, TopDirections,
                         ::testing::Values(Shape{500, 400}, Shape{400, 500}, Shape{120, 40}),
                         [](const auto& test) {
                           return std::to_string(test.param.rows) + "x" +
                                  std::to_string(test.param.cols);
                         });

TEST(TopDirections, OfLowRankAreNoMoreThanThere) {
  const RowMajor full = drawn(300, 3, 1);
  RowMajor m = full * full.topRows(200).transpose();
  const SingularParts parts = top_directions({m.data(), m.rows(), m.cols()}, 8);
  EXPECT_GT(parts.values[2], 1);
  EXPECT_LT(parts.values[3], 1e-4 * parts.values[0]);
}

}  // namespace
}  // namespace lapidary
