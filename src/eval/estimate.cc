#include "eval/estimate.h"

#include <cmath>

#include "base/statistics.h"

namespace lapidary {

// With K blocks, sums S_k of n_k values each, and the mean m of all n:
// error^2 = K / (K - 1) * sum of (S_k - n_k m)^2 / n^2. The last block may be shorter.
Estimate estimate(std::span<const double> values) {
  Estimate result{mean(values)};
  const size_t block = static_cast<size_t>(std::sqrt(static_cast<double>(values.size())));
  double squares = 0;
  int64_t blocks = 0;
  for (size_t first = 0; first < values.size(); first += block, ++blocks) {
    const auto part = values.subspan(first, std::min(block, values.size() - first));
    const double off = (mean(part) - result.value) * static_cast<double>(part.size());
    squares += off * off;
  }
  if (blocks < 2) return result;
  const auto k = static_cast<double>(blocks), n = static_cast<double>(values.size());
  result.error = std::sqrt(k / (k - 1) * squares) / n;
  return result;
}

Estimate exponential(const Estimate& x) {
  Estimate result{std::exp(x.value)};
  if (x.error) result.error = *x.error * result.value;
  return result;
}

}  // namespace lapidary
