#include "isolate/statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/non_central_t.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "base/statistics.h"
#include "isolate/differences.h"

namespace lapidary {
namespace {

using boost::math::complement;
using boost::math::students_t;

}  // namespace

double sign_test(int64_t wins, int64_t losses) {
  LAPIDARY_CHECK(wins >= 0 && losses >= 0, "out of range");
  const auto fewer = static_cast<double>(std::min(wins, losses));
  if (wins == losses) return 1;
  const boost::math::binomial fair(static_cast<double>(wins + losses), 0.5);
  return std::min(1.0, 2 * cdf(fair, fewer));
}

Interval wilson_interval(double mean, int64_t count, double level) {
  LAPIDARY_CHECK(mean >= 0 && mean <= 1 && count >= 1 && level > 0 && level < 1, "out of range");
  const auto n = static_cast<double>(count);
  const double z = quantile(complement(boost::math::normal(), (1 - level) / 2));
  const double middle = (mean + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(mean * (1 - mean) / n + z * z / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

TestResult paired_t_test(std::span<const double> differences) {
  const double dz = cohens_dz(differences);
  const double n = static_cast<double>(differences.size());
  TestResult out{.statistic = dz * std::sqrt(n)};
  if (std::isinf(dz)) {
    out.p = 0;
  } else {
    out.p = 2 * cdf(complement(students_t(n - 1), std::abs(out.statistic)));
  }
  return out;
}

double cohens_dz(std::span<const double> differences) {
  check_differences(differences, 2);
  const double middle = mean(differences);
  // Not by the deviation, which rounding keeps from being 0 where all are equal.
  const bool equal = std::all_of(differences.begin(), differences.end(),
                                 [&](double d) { return d == differences[0]; });
  if (equal) return middle == 0 ? 0 : std::copysign(INFINITY, middle);
  return middle / standard_deviation(differences);
}

double hedges_gz(std::span<const double> differences) {
  const double df = static_cast<double>(differences.size()) - 1;
  const double dz = cohens_dz(differences);
  if (std::isinf(dz)) return dz;
  // Of two pairs gamma(0) is infinite, and this 0.
  return dz * std::exp(std::lgamma(df / 2) - std::lgamma((df - 1) / 2)) / std::sqrt(df / 2);
}

std::vector<double> holm_adjusted(std::span<const double> p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  std::vector<double> out(p.size());
  double largest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, p[order[i]] * static_cast<double>(p.size() - i));
    out[order[i]] = std::min(largest, 1.0);
  }
  return out;
}

double paired_t_power(double dz, int64_t n, double alpha) {
  LAPIDARY_CHECK(n >= 2 && alpha > 0 && alpha < 1 && std::isfinite(dz), "out of range");
  const double df = static_cast<double>(n - 1);
  const double critical = quantile(complement(students_t(df), alpha / 2));
  // By symmetry of a positive effect: its own side, and the other, which hardly counts. Boost takes
  // no shift whose square does not fit an int; power is 1 long before.
  const double shift = std::min(std::abs(dz) * std::sqrt(static_cast<double>(n)), 6e4);
  const boost::math::non_central_t shifted(df, shift);
  return cdf(complement(shifted, critical)) + cdf(shifted, -critical);
}

std::optional<int64_t> pairs_needed(double dz, double power, double alpha) {
  constexpr int64_t kMost = 1'000'000;
  if (std::isinf(dz)) return 2;
  if (dz == 0 || paired_t_power(dz, kMost, alpha) < power) return std::nullopt;
  int64_t few = 1, enough = kMost;  // power grows with n
  while (enough - few > 1) {
    const int64_t n = few + (enough - few) / 2;
    (paired_t_power(dz, n, alpha) < power ? few : enough) = n;
  }
  return enough;
}

}  // namespace lapidary
