#include "train/gradients.h"

#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "lapidary/error.h"

#include "train/blocks.h"

namespace lapidary {

namespace {

std::vector<int64_t> gradient_sizes(std::span<const Parameter> parameters) {
  std::vector<int64_t> sizes;
  for (const Parameter& p : parameters) sizes.push_back(std::ssize(p.grad));
  return sizes;
}

// In eight sums, of every eighth element each: one after another, additions would wait for each
// other.
double sum_of_squares(std::span<const float> values) {
  std::array<double, 8> sums{};
  const size_t whole = values.size() / sums.size() * sums.size();
  for (size_t i = 0; i < whole; i += sums.size())
    for (size_t k = 0; k < sums.size(); ++k) {
      const double x = values[i + k];
      sums[k] += x * x;
    }
  for (size_t i = whole; i < values.size(); ++i)
    sums[i - whole] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

double gradient_norm(std::span<const Parameter> parameters, ThreadPool& pool) {
  const std::vector<int64_t> sizes = gradient_sizes(parameters);
  int64_t tasks = 0;
  for (const int64_t size : sizes) tasks += task_count(size);
  std::vector<double> sums(static_cast<size_t>(tasks));
  for_each_piece(sizes, pool, [&](size_t i, int64_t first, int64_t last, int64_t task) {
    sums[static_cast<size_t>(task)] = sum_of_squares(
        parameters[i].grad.subspan(static_cast<size_t>(first), static_cast<size_t>(last - first)));
  });
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

double clip_gradients(std::span<const Parameter> parameters, double max_norm, ThreadPool& pool) {
  LAPIDARY_CHECK(max_norm > 0, "gradients are clipped to a positive norm");
  const double norm = gradient_norm(parameters, pool);
  if (!std::isfinite(norm) || norm <= max_norm) return norm;
  const auto scale = static_cast<float>(max_norm / (norm + 1e-6));
  for_each_piece(gradient_sizes(parameters), pool,
                 [&](size_t i, int64_t first, int64_t last, int64_t) {
                   float* const grad = parameters[i].grad.data();
                   for (int64_t k = first; k < last; ++k) grad[k] *= scale;
                 });
  return norm;
}

}  // namespace lapidary
