#include "generate/logit_rows.h"

#include <Eigen/Core>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/kernels.h"

namespace lapidary {

double log_sum_exp(std::span<const float> logits) {
  constexpr auto kSlice = static_cast<size_t>(kLogitSlice);  // which the second-level cache holds
  const Kernels& kernels = best_kernels();
  std::vector<float> slice;
  double highest = -std::numeric_limits<double>::infinity();
  double sum = 0;  // of e^(logit - highest)
  for (size_t first = 0; first < logits.size(); first += kSlice) {
    const auto part = logits.subspan(first, std::min(kSlice, logits.size() - first));
    slice.assign(part.begin(), part.end());
    // Kernels take what is not a number for a small one. 0 times what is not finite is none.
    const Eigen::Map<const Eigen::ArrayXf> values(slice.data(), std::ssize(slice));
    if (const float zero = (values * 0.0f).sum(); std::isnan(zero)) return double{zero};
    const double log_sum = kernels.softmax(slice.data(), std::ssize(slice));
    const double before = std::exchange(highest, std::max(highest, log_sum));
    sum = sum * std::exp(before - highest) + std::exp(log_sum - highest);
  }
  return highest + std::log(sum);
}

}  // namespace lapidary
