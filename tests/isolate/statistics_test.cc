// Tests, intervals and effect sizes against scipy, statsmodels and scikit-learn
// (tools/make_metrics_golden.py), and what those leave open.
#include "base/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/rng.h"
#include "isolate/agreement.h"
#include "isolate/golden.h"
#include "isolate/statistics.h"

namespace lapidary {
namespace {

using Values = std::vector<double>;

::testing::AssertionResult near(double value, const Json& expected) {
  const double wanted = expected;
  return within(value, wanted, 1e-6 * std::abs(wanted) + 1e-14);
}

void expect_test(const TestResult& result, const Json& golden, const char* name) {
  EXPECT_TRUE(near(result.statistic, golden[0])) << name;
  EXPECT_TRUE(near(result.p, golden[1])) << name;
}

TEST(StatisticsGolden, TestsAndEffectsEqualScipys) {
  int exact_signs = 0;
  const Json samples = metrics_golden("statistics.json")["samples"];
  for (const Json& sample : samples) {
    const auto d = sample["differences"].get<Values>();
    SCOPED_TRACE(sample["differences"].dump());
    expect_test(wilcoxon_signed_rank(d), sample["wilcoxon"], "wilcoxon");
    expect_test(paired_t_test(d), sample["t"], "t");
    EXPECT_TRUE(near(cohens_dz(d), sample["dz"]));
    EXPECT_TRUE(near(hedges_gz(d), sample["gz"]));
    EXPECT_TRUE(near(rank_biserial(d), sample["rank_biserial"]));
    if (!sample.contains("sign_flip")) continue;
    EXPECT_TRUE(near(sign_flip_test(d, 1, 0).p, sample["sign_flip"]));
    ++exact_signs;
  }
  EXPECT_GE(exact_signs, 10);
}

TEST(StatisticsGolden, IntervalsOfTheSameResamplesEqualScipys) {
  int compared = 0;
  const Json samples = metrics_golden("statistics.json")["samples"];
  for (const Json& sample : samples) {
    if (!sample.contains("bootstrap")) continue;
    const Json& golden = sample["bootstrap"];
    const auto means = golden["means"].get<Values>();
    const Interval middle = percentile_interval(means);
    EXPECT_TRUE(near(middle.low, golden["percentile"][0]));
    EXPECT_TRUE(near(middle.high, golden["percentile"][1]));
    const auto bca = bca_interval(sample["differences"].get<Values>(), means);
    ASSERT_TRUE(bca);
    EXPECT_TRUE(near(bca->bias, golden["bias"]));
    EXPECT_TRUE(near(bca->acceleration, golden["acceleration"]));
    EXPECT_TRUE(near(bca->interval.low, golden["bca"][0]));
    EXPECT_TRUE(near(bca->interval.high, golden["bca"][1]));
    ++compared;
  }
  EXPECT_GE(compared, 5);
}

TEST(StatisticsGolden, PowerHolmSharesAndAgreementEqualThePackages) {
  const Json golden = metrics_golden("statistics.json");
  for (const Json& power : golden["power"]) {
    EXPECT_TRUE(near(paired_t_power(power["dz"], power["n"]), power["power"])) << power.dump();
    EXPECT_EQ(pairs_needed(power["dz"]), power["needed"].get<int64_t>()) << power.dump();
  }
  for (const Json& family : golden["holm"]) {
    const Values adjusted = holm_adjusted(family["p"].get<Values>());
    for (size_t i = 0; i < adjusted.size(); ++i)
      EXPECT_TRUE(near(adjusted[i], family["adjusted"][i])) << family.dump();
  }
  for (const Json& share : golden["shares"]) {
    EXPECT_TRUE(near(sign_test(share["wins"], share["losses"]), share["p"])) << share.dump();
    const Interval interval = wilson_interval(share["mean"], share["n"]);
    EXPECT_TRUE(near(interval.low, share["wilson"][0])) << share.dump();
    EXPECT_TRUE(near(interval.high, share["wilson"][1])) << share.dump();
  }
  EXPECT_EQ(sign_test(0, 0), 1);
  for (const Json& labels : golden["clusterings"]) {
    const auto a = labels["a"].get<std::vector<int>>(), b = labels["b"].get<std::vector<int>>();
    EXPECT_TRUE(near(adjusted_rand_index(a, b), labels["ari"])) << labels.dump();
    EXPECT_TRUE(near(normalized_mutual_information(a, b), labels["nmi"])) << labels.dump();
  }
}

Values normal_differences(int n, double shift, uint64_t seed) {
  const CounterRng rng(seed);
  Values out;
  for (int i = 0; i < n; ++i) out.push_back(rng.normal(static_cast<uint64_t>(i)) + shift);
  return out;
}

TEST(Bootstrap, DependsOnItsSeedAlone) {
  const Values d = normal_differences(20, 0.3, 1);
  const Values once = bootstrap_means(d, 500, 7);
  EXPECT_TRUE(std::is_sorted(once.begin(), once.end()));
  EXPECT_EQ(once, bootstrap_means(d, 500, 7));
  EXPECT_NE(once, bootstrap_means(d, 500, 8));
}

// The means of resamples have the mean m of the differences and their standard deviation s, over
// sqrt(n) and with n in the divisor. Of 20000 means, the mean is off by s / 141 as a rule and the
// deviation by s / 200: five times that is a bound that one seed in a million would break.
TEST(Bootstrap, MeansSpreadAsTheyShould) {
  const Values d = normal_differences(24, 0.5, 2);
  const Values means = bootstrap_means(d, 20000, 3);
  const double expected = standard_deviation(d) * std::sqrt(23.0) / 24;
  EXPECT_TRUE(within(mean(means), mean(d), 5 * expected / 141));
  EXPECT_TRUE(within(standard_deviation(means), expected, 5 * expected / 200));
}

// Of 400 samples with a true mean of 0.4, a 95 % interval should hold it in 380. Of 30 pairs it
// holds it a little less often: 92 to 95 %, with a deviation of 1.3 %.
TEST(Bootstrap, IntervalsHoldTheMeanAsOftenAsTheySay) {
  int percentile = 0, bca = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const Values d = normal_differences(30, 0.4, 1000 + seed);
    const Values means = bootstrap_means(d, 400, seed);
    const Interval a = percentile_interval(means), b = bca_interval(d, means)->interval;
    percentile += a.low <= 0.4 && 0.4 <= a.high;
    bca += b.low <= 0.4 && 0.4 <= b.high;
  }
  EXPECT_GE(percentile, 356);
  EXPECT_LE(percentile, 393);
  EXPECT_GE(bca, 356);
  EXPECT_LE(bca, 393);
}

TEST(Bootstrap, OfEqualDifferencesHasNoBca) {
  const Values d(6, 0.5);
  const Values means = bootstrap_means(d, 50, 1);
  EXPECT_DOUBLE_EQ(percentile_interval(means).low, 0.5);
  EXPECT_FALSE(bca_interval(d, means));
}

TEST(SignFlip, DrawnSignsApproachAllOfThem) {
  // 17 differences, one of them 0: its sign does not matter, so p is that of the other 16.
  for (const double shift : {0.0, 0.3, 0.6}) {
    Values d = normal_differences(16, shift, 5);
    const double exact = sign_flip_test(d, 1, 0).p;
    d.push_back(0);
    const double drawn = sign_flip_test(d, 20000, 11).p;
    // Twice a share of 20000 draws; five of its deviations.
    EXPECT_TRUE(within(drawn, exact, 5 * 2 * std::sqrt(exact / 2 / 20000) + 1e-4));
    EXPECT_EQ(drawn, sign_flip_test(d, 20000, 11).p);
    EXPECT_NE(drawn, sign_flip_test(d, 20000, 12).p);
  }
}

TEST(SignFlip, EqualSumsAreEqualForAllTheirRounding) {
  // 0.1 + 0.2 - 0.3 is not 0 to the bit, and -0.1 - 0.2 + 0.3 is less: 8 of 16 sums reach 0.05.
  EXPECT_EQ(sign_flip_test(Values{0.1, 0.2, -0.3, 0.05}, 1, 0).p, 1);
}

TEST(SignFlip, NeverSaysZero) {
  EXPECT_DOUBLE_EQ(sign_flip_test(Values(40, 1.0), 99, 1).p, 2.0 / 100);
  EXPECT_DOUBLE_EQ(sign_flip_test(Values(10, 0.1), 1, 1).p, 2.0 / 1024);
}

TEST(Statistics, OfNoDifferencesAtAllSpeakAgainstNothing) {
  const Values zeros(20, 0.0);
  EXPECT_EQ(wilcoxon_signed_rank(zeros).p, 1);
  EXPECT_EQ(sign_flip_test(zeros, 100, 1).p, 1);
  EXPECT_EQ(paired_t_test(zeros).p, 1);
  EXPECT_EQ(paired_t_test(zeros).statistic, 0);
  EXPECT_EQ(cohens_dz(zeros), 0);
  EXPECT_EQ(rank_biserial(zeros), 0);
  EXPECT_FALSE(pairs_needed(0));
}

TEST(Statistics, OfEqualDifferencesAreInfinite) {
  const Values equal(7, -0.1);  // whose mean is not -0.1 to the bit
  EXPECT_EQ(cohens_dz(equal), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(hedges_gz(equal), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(paired_t_test(equal).p, 0);
  EXPECT_EQ(rank_biserial(equal), -1);
  EXPECT_EQ(pairs_needed(cohens_dz(equal)), 2);
  EXPECT_EQ(pairs_needed(1e100), 2);  // nearly equal ones
  EXPECT_DOUBLE_EQ(paired_t_power(-1e5, 1000), 1);
}

TEST(Statistics, HedgesTrustsNoEffectOfTwoPairs) {
  EXPECT_EQ(hedges_gz(Values{1.0, 2.0}), 0);
}

TEST(Statistics, RefuseWhatTheyCannotUse) {
  EXPECT_THROW(paired_t_test(Values{1.0}), Error);
  EXPECT_THROW(wilcoxon_signed_rank({}), Error);
  EXPECT_THROW(sign_flip_test(Values{1.0, NAN}, 10, 1), Error);
  EXPECT_THROW(bootstrap_means(Values{1.0, INFINITY}, 10, 1), Error);
}

TEST(Agreement, DoesNotDependOnTheNamesOfLabels) {
  const std::vector<int> a = {0, 0, 1, 1, 2, 2, 2}, b = {9, 9, -4, -4, 3, 3, 3};
  EXPECT_DOUBLE_EQ(adjusted_rand_index(a, b), 1);
  EXPECT_DOUBLE_EQ(normalized_mutual_information(a, b), 1);
  EXPECT_EQ(adjusted_rand_index({}, {}), 1);
}

}  // namespace
}  // namespace lapidary
