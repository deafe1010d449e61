#include "lapidary/memorization.h"

#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

namespace lapidary {
namespace {

TEST(Memorization, IsWhatTheModelKnowsBeyondTheReferenceInBits) {
  const double bit = std::numbers::ln2;
  EXPECT_DOUBLE_EQ(memorized_bits(10 * bit, 3 * bit), 7);
  EXPECT_DOUBLE_EQ(memorized_bits(3 * bit, 10 * bit), 0);  // worse than the reference: nothing
  EXPECT_DOUBLE_EQ(memorized_bits(4, 4), 0);
}

TEST(Memorization, ExtractedIsWhatGreedyDecodingCompletes) {
  using Marks = std::vector<uint8_t>;
  const Marks all = {0, 1, 1, 1, 1, 1};
  EXPECT_TRUE(is_extracted(all, Marks{0, 0, 0, 1, 1, 1}, 0));   // after the first three
  EXPECT_FALSE(is_extracted(all, Marks{0, 1, 1, 0, 1, 1}, 0));  // wrong at once
  EXPECT_FALSE(is_extracted(all, Marks{0, 1, 1, 1, 1, 0}, 0));  // wrong at the last
  EXPECT_TRUE(is_extracted(all, Marks{0, 0, 0, 0, 1, 1}, 4));
  EXPECT_FALSE(is_extracted(all, Marks{0, 0, 1, 0, 1, 1}, 2));
  // What does not count need not be right, but something must count.
  EXPECT_TRUE(is_extracted(Marks{0, 1, 1, 0, 1, 0}, Marks{0, 1, 1, 0, 1, 0}, 3));
  EXPECT_FALSE(is_extracted(Marks{0, 1, 1, 0, 0, 0}, Marks{0, 1, 1, 0, 0, 0}, 3));
  EXPECT_FALSE(is_extracted(all, all, 6));
}

TEST(Memorization, MembershipByHand) {
  // Ascending: member 1, member 2, other 2.5, member 3, other 4. Of the six pairs the member has
  // the lower loss in 2 + 2 + 1. Below 3 lie 3 members and 1 other: F1 = 6 / 7.
  const Membership found = infer_membership(std::vector{1.0, 3.0, 2.0}, std::vector{4.0, 2.5});
  EXPECT_DOUBLE_EQ(found.auc, 5.0 / 6);
  EXPECT_DOUBLE_EQ(found.f1, 6.0 / 7);
  EXPECT_DOUBLE_EQ(found.threshold, 3);
  EXPECT_DOUBLE_EQ(found.precision, 0.75);
  EXPECT_DOUBLE_EQ(found.recall, 1);
}

TEST(Memorization, EqualLossesTellNothing) {
  const Membership found = infer_membership(std::vector{1.0, 1.0}, std::vector{1.0, 1.0});
  EXPECT_DOUBLE_EQ(found.auc, 0.5);
  EXPECT_DOUBLE_EQ(found.f1, 2.0 / 3);  // of calling all of them members
}

// The paper's validation points: data set sizes of 64 tokens for which it expects 0.55, 0.75, 0.95.
TEST(Memorization, TheLawGivesTheFiguresThatThePaperExpects) {
  const auto expected = [](double sequences, double parameters) {
    return expected_membership_f1(sequences * 64 * std::log2(50257) / parameters);
  };
  const double xl = 1'556'075'200;
  EXPECT_NEAR(expected(170'654'583, xl), 0.55, 0.006);
  EXPECT_NEAR(expected(76'795'021, xl), 0.75, 0.006);
  EXPECT_NEAR(expected(18'851'574, xl), 0.95, 0.006);
  const double small = 124'439'808;
  EXPECT_NEAR(expected(13'566'442, small), 0.55, 0.006);
  EXPECT_NEAR(expected(6'104'935, small), 0.75, 0.006);
  EXPECT_NEAR(expected(1'498'634, small), 0.95, 0.006);
}

}  // namespace
}  // namespace lapidary
