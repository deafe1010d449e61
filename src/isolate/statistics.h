// What is said of a measure that every example has under two conditions. Everything is about the
// differences of pairs, n of them; definitions and conventions: docs/isolation.md.
//
// Throws Error{kInput} for fewer differences than a function needs and for one that is not finite.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lapidary {

struct TestResult {
  double statistic = 0;
  double p = 1;  // two-sided
};

struct Interval {
  double low, high;
};

// Means of `count` samples of n differences drawn with replacement, in ascending order. They
// depend on the differences, the count and the seed alone.
std::vector<double> bootstrap_means(std::span<const double> differences, int64_t count,
                                    uint64_t seed);
// The middle `level` of the sorted means.
Interval percentile_interval(std::span<const double> sorted_means, double level = 0.95);
// Efron's: moved by the bias of the means and the skewness of the differences. None where all
// means lie on one side of the mean, as with equal differences. n >= 2.
struct BcaInterval {
  Interval interval;
  double bias;          // z0
  double acceleration;  // a
};
std::optional<BcaInterval> bca_interval(std::span<const double> differences,
                                        std::span<const double> sorted_means, double level = 0.95);

// The smaller sum of signed ranks; differences of 0 are left out. Exact up to 50 pairs without
// ties and zeros and up to 13 with them, else by the normal approximation with the correction for
// ties and none for continuity. n >= 1.
TestResult wilcoxon_signed_rank(std::span<const double> differences);

// The mean under random signs: of all 2^n up to 16 pairs, beyond of `resamples` drawn ones, where
// p is (1 + those as extreme) / (1 + resamples) of the rarer side, doubled. n >= 1.
TestResult sign_flip_test(std::span<const double> differences, int64_t resamples, uint64_t seed);

// Whether wins and losses are equally likely; ties are left out. Exact, by the binomial; of none 1.
double sign_test(int64_t wins, int64_t losses);
// Of the mean of n >= 1 values within 0 ... 1; by Wilson, as of a share of n. Values between the
// ends vary less than a share, so that it is at worst too wide.
Interval wilson_interval(double mean, int64_t n, double level = 0.95);

// Student's t of the mean. Of equal differences +-inf with p 0, and of zeros 0 with p 1. n >= 2.
TestResult paired_t_test(std::span<const double> differences);

// Mean over standard deviation; +-inf of equal differences, 0 of zeros. n >= 2.
double cohens_dz(std::span<const double> differences);
// Freed of the bias that a small n gives Cohen's; exact, with gamma functions.
double hedges_gz(std::span<const double> differences);
// (sum of positive ranks - sum of negative ranks) / sum of both, -1 ... 1; 0 of zeros. n >= 1.
double rank_biserial(std::span<const double> differences);

// p-values of a family of tests, made larger so that the chance of any false alarm is kept (Holm).
std::vector<double> holm_adjusted(std::span<const double> p);

// Of the two-sided paired t test to find an effect of size `dz` among n pairs, n >= 2.
double paired_t_power(double dz, int64_t n, double alpha = 0.05);
// The fewest pairs that find it with that power; none of an effect of 0, or where a million are not
// enough.
std::optional<int64_t> pairs_needed(double dz, double power = 0.8, double alpha = 0.05);

}  // namespace lapidary
