#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <cmath>

#include "base/rng.h"
#include "base/statistics.h"
#include "isolate/differences.h"
#include "isolate/statistics.h"

namespace lapidary {
namespace {

constexpr size_t kMostEnumerated = 16;  // pairs whose signs are all tried

// With this bit pattern of signs, 64 pairs to a word: 1 is minus.
double signed_sum(std::span<const double> differences, std::span<const uint64_t> minus) {
  double sum = 0;
  for (size_t i = 0; i < differences.size(); ++i)
    sum += (minus[i / 64] >> (i % 64)) & 1 ? -differences[i] : differences[i];
  return sum;
}

// Counts sums on either side of the observed one, those equal to it but for rounding on both.
class Extremes {
 public:
  explicit Extremes(std::span<const double> differences) {
    double size = 0;
    for (const double d : differences) observed_ += d, size += std::abs(d);
    rounding_ = 1e-13 * size;
  }
  void add(double sum) {
    below_ += sum <= observed_ + rounding_;
    above_ += sum >= observed_ - rounding_;
  }
  // `more`: 1 where the observed signs are no part of what was counted.
  double p(int64_t count, int64_t more) const {
    const auto rarer = static_cast<double>(std::min(below_, above_) + more);
    return std::min(1.0, 2 * rarer / static_cast<double>(count + more));
  }

 private:
  double observed_ = 0, rounding_ = 0;
  int64_t below_ = 0, above_ = 0;
};

}  // namespace

std::vector<double> bootstrap_means(std::span<const double> differences, int64_t count,
                                    uint64_t seed) {
  check_differences(differences, 1);
  LAPIDARY_CHECK(count > 0, "no resamples");
  const CounterRng rng(seed);
  const auto n = static_cast<double>(differences.size());
  std::vector<double> means(static_cast<size_t>(count));
  uint64_t draw = 0;
  for (double& middle : means) {
    double sum = 0;
    for (size_t i = 0; i < differences.size(); ++i)
      sum += differences[static_cast<size_t>(rng.uniform(draw++) * n)];
    middle = sum / n;
  }
  std::sort(means.begin(), means.end());
  return means;
}

Interval percentile_interval(std::span<const double> sorted_means, double level) {
  const double tail = (1 - level) / 2;
  return {quantile(sorted_means, tail), quantile(sorted_means, 1 - tail)};
}

std::optional<BcaInterval> bca_interval(std::span<const double> differences,
                                        std::span<const double> sorted_means, double level) {
  check_differences(differences, 2);
  const double middle = mean(differences);
  const auto [first, last] = std::equal_range(sorted_means.begin(), sorted_means.end(), middle);
  const auto below =
      static_cast<double>((first - sorted_means.begin()) + (last - sorted_means.begin()));
  const double share = below / (2 * static_cast<double>(sorted_means.size()));
  // The jackknife's influence of a difference on the mean is its distance from it, over n - 1.
  double squares = 0, cubes = 0;
  for (const double d : differences) {
    squares += (d - middle) * (d - middle);
    cubes += (d - middle) * (d - middle) * (d - middle);
  }
  if (share <= 0 || share >= 1 || squares == 0) return std::nullopt;

  const boost::math::normal normal;
  BcaInterval out{};
  out.bias = boost::math::quantile(normal, share);
  out.acceleration = cubes / (6 * std::pow(squares, 1.5));
  const auto end = [&](double tail) {
    const double z = out.bias + boost::math::quantile(normal, tail);
    return quantile(sorted_means, cdf(normal, out.bias + z / (1 - out.acceleration * z)));
  };
  const double tail = (1 - level) / 2;
  out.interval = {end(tail), end(1 - tail)};
  return out;
}

TestResult sign_flip_test(std::span<const double> differences, int64_t resamples, uint64_t seed) {
  check_differences(differences, 1);
  const size_t n = differences.size();
  Extremes extremes(differences);
  TestResult out{.statistic = mean(differences)};
  if (n <= kMostEnumerated) {
    const int64_t all = int64_t{1} << n;
    for (int64_t i = 0; i < all; ++i) {
      const auto signs = static_cast<uint64_t>(i);
      extremes.add(signed_sum(differences, {&signs, 1}));
    }
    out.p = extremes.p(all, 0);
    return out;
  }
  LAPIDARY_CHECK(resamples > 0, "no resamples");
  const CounterRng rng(seed);
  std::vector<uint64_t> signs((n + 63) / 64);
  uint64_t draw = 0;
  for (int64_t i = 0; i < resamples; ++i) {
    for (uint64_t& word : signs) word = rng.bits(draw++);
    extremes.add(signed_sum(differences, signs));
  }
  out.p = extremes.p(resamples, 1);
  return out;
}

}  // namespace lapidary
