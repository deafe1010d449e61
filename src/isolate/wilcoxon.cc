#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <cmath>

#include "isolate/differences.h"
#include "isolate/statistics.h"

namespace lapidary {
namespace {

constexpr size_t kMostExact = 50;      // pairs, as scipy has it
constexpr size_t kMostExactTied = 13;  // where there are ties or zeros

struct SignedRanks {
  std::vector<int64_t> doubled;  // twice the rank, so that the ranks of ties are whole
  int64_t plus = 0, minus = 0;   // doubled sums
  double ties = 0;               // sum of t^3 - t over groups of t equal sizes
};

SignedRanks signed_ranks(std::span<const double> differences) {
  std::vector<double> values;
  std::copy_if(differences.begin(), differences.end(), std::back_inserter(values),
               [](double d) { return d != 0; });
  std::sort(values.begin(), values.end(),
            [](double a, double b) { return std::abs(a) < std::abs(b); });
  SignedRanks out;
  for (size_t begin = 0, end = 0; begin < values.size(); begin = end) {
    while (end < values.size() && std::abs(values[end]) == std::abs(values[begin])) ++end;
    const auto doubled = static_cast<int64_t>(begin + 1 + end);  // the mean of its places, twice
    const auto size = static_cast<double>(end - begin);
    out.ties += size * size * size - size;
    for (size_t i = begin; i < end; ++i) {
      out.doubled.push_back(doubled);
      (values[i] > 0 ? out.plus : out.minus) += doubled;
    }
  }
  return out;
}

// The share of all ways to sign the ranks whose positive sum is at most the smaller one found. The
// ways are counted per sum, up to 2^50 of them: exactly.
double share_as_small(const SignedRanks& ranks) {
  std::vector<double> ways(static_cast<size_t>(ranks.plus + ranks.minus) + 1, 0);
  ways[0] = 1;
  size_t highest = 0;
  for (const int64_t rank : ranks.doubled) {
    const auto step = static_cast<size_t>(rank);
    highest += step;
    for (size_t sum = highest; sum >= step; --sum) ways[sum] += ways[sum - step];
  }
  double small = 0;
  for (int64_t sum = 0; sum <= std::min(ranks.plus, ranks.minus); ++sum)
    small += ways[static_cast<size_t>(sum)];
  return std::ldexp(small, -static_cast<int>(ranks.doubled.size()));
}

}  // namespace

TestResult wilcoxon_signed_rank(std::span<const double> differences) {
  check_differences(differences, 1);
  const SignedRanks ranks = signed_ranks(differences);
  TestResult out{.statistic = static_cast<double>(std::min(ranks.plus, ranks.minus)) / 2};
  const auto n = static_cast<double>(ranks.doubled.size());
  if (n == 0) return out;
  const bool plain = ranks.ties == 0 && ranks.doubled.size() == differences.size();
  if (differences.size() <= (plain ? kMostExact : kMostExactTied)) {
    out.p = std::min(1.0, 2 * share_as_small(ranks));
    return out;
  }
  const double expected = n * (n + 1) / 4;
  const double deviation = std::sqrt((n * (n + 1) * (2 * n + 1) - ranks.ties / 2) / 24);
  const double z = (out.statistic - expected) / deviation;
  out.p = std::min(1.0, 2 * cdf(boost::math::normal(), z));
  return out;
}

double rank_biserial(std::span<const double> differences) {
  check_differences(differences, 1);
  const SignedRanks ranks = signed_ranks(differences);
  const int64_t sum = ranks.plus + ranks.minus;
  return sum == 0 ? 0 : static_cast<double>(ranks.plus - ranks.minus) / static_cast<double>(sum);
}

}  // namespace lapidary
