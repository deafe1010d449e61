#include "base/statistics.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace lapidary {
namespace {

TEST(Statistics, OfKnownValues) {
  const std::vector<double> values = {2, 4, 4, 4, 5, 5, 7, 9};
  EXPECT_DOUBLE_EQ(mean(values), 5);
  EXPECT_NEAR(standard_deviation(values), 2.138089935299395, 1e-12);  // squares sum to 32, over 7
  EXPECT_DOUBLE_EQ(median(values), 4.5);
  EXPECT_DOUBLE_EQ(median(std::vector<double>{9, 1, 5}), 5);
}

TEST(Statistics, OfOneAndOfNone) {
  const std::vector<double> one = {3}, none;
  EXPECT_DOUBLE_EQ(mean(one), 3);
  EXPECT_DOUBLE_EQ(standard_deviation(one), 0);
  EXPECT_DOUBLE_EQ(median(one), 3);
  EXPECT_DOUBLE_EQ(mean(none), 0);
  EXPECT_DOUBLE_EQ(median(none), 0);
}

TEST(Statistics, RelativeErrorIsOfAllValuesTogether) {
  const std::vector<float> expected = {3, 4}, near = {3, 4.5}, broken = {3, NAN}, shorter = {3};
  EXPECT_EQ(relative_error(expected, expected), 0);
  EXPECT_NEAR(relative_error(near, expected), 0.1, 1e-7);
  EXPECT_TRUE(std::isnan(relative_error(broken, expected)));
  EXPECT_TRUE(std::isnan(relative_error(shorter, expected)));
}

}  // namespace
}  // namespace lapidary
