#include "blend/factorwise.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace lapidary {

namespace {

using Values = AlignedVector<float>;

// Keeps the int(density * size) values of the largest magnitude; of equal ones the first.
void keep_largest(Values& values, double density) {
  const auto kept = static_cast<size_t>(density * static_cast<double>(values.size()));
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::nth_element(order, order.begin() + static_cast<int64_t>(kept),
                           [&](size_t x, size_t y) {
                             const float a = std::abs(values[x]), b = std::abs(values[y]);
                             return a != b ? a > b : x < y;
                           });
  for (size_t i = kept; i < order.size(); ++i) values[order[i]] = 0;
}

// Keeps each value with that likelihood, and makes up for the others.
void keep_some(Values& values, double density, const CounterRng& rng) {
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = rng.uniform(i) < density ? values[i] / static_cast<float>(density) : 0;
}

Values weighted_sum(std::span<const Values> values, std::span<const float> weights) {
  Values sum(values.front().size());
  for (size_t k = 0; k < values.size(); ++k)
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[k][i] * weights[k];
  return sum;
}

// The sign that has more weight in the plain sum wins; the mean of the weighted values that have
// it.
Values elected_mean(std::span<const Values> values, std::span<const float> weights) {
  Values mean(values.front().size());
  for (size_t i = 0; i < mean.size(); ++i) {
    float sum = 0;
    for (const Values& v : values) sum += v[i];
    float agreeing = 0, count = 0;
    for (size_t k = 0; k < values.size(); ++k)
      if (sum >= 0 ? values[k][i] > 0 : values[k][i] < 0) {
        agreeing += values[k][i] * weights[k];
        ++count;
      }
    mean[i] = agreeing / std::max(count, 1.0f);
  }
  return mean;
}

// What a method does to values of adapters at the same places.
struct Rule {
  bool keeps_some = false;     // at random
  bool keeps_largest = false;  // by magnitude
  bool elects = false;         // a sign
};

Rule rule_of(BlendMethod method) {
  switch (method) {
    case BlendMethod::kTies:
    case BlendMethod::kTiesSvd:
      return {.keeps_largest = true, .elects = true};
    case BlendMethod::kDareLinear:
    case BlendMethod::kDareLinearSvd:
      return {.keeps_some = true};
    case BlendMethod::kDareTies:
    case BlendMethod::kDareTiesSvd:
      return {.keeps_some = true, .elects = true};
    case BlendMethod::kMagnitudePrune:
    case BlendMethod::kMagnitudePruneSvd:
      return {.keeps_largest = true};
    default:
      return {};
  }
}

Values blend_values(std::vector<Values> values, std::span<const float> weights,
                    const BlendOptions& options, uint64_t stream) {
  const Rule rule = rule_of(options.method);
  if (options.density < 1)
    for (size_t k = 0; k < values.size(); ++k) {
      if (rule.keeps_some)
        keep_some(values[k], options.density, CounterRng(options.seed, stream * values.size() + k));
      if (rule.keeps_largest) keep_largest(values[k], options.density);
    }
  return rule.elects ? elected_mean(values, weights) : weighted_sum(values, weights);
}

}  // namespace

AdapterMatrix blend_factors(std::span<const Term> terms, const BlendOptions& options,
                            uint64_t stream) {
  // The root of a weight goes to either factor, its sign to one of them.
  std::vector<float> of_a, of_b;
  std::vector<Values> a, b;
  for (const Term& term : terms) {
    const double weight = term.weight * term.matrix->scale;
    of_b.push_back(static_cast<float>(std::sqrt(std::abs(weight))));
    of_a.push_back(weight < 0 ? -of_b.back() : of_b.back());
    a.push_back(term.matrix->a);
    b.push_back(term.matrix->b);
  }
  const AdapterMatrix& first = *terms.front().matrix;
  return {.target = first.target,
          .rank = first.rank,
          .scale = 1,
          .a = blend_values(std::move(a), of_a, options, 2 * stream),
          .b = blend_values(std::move(b), of_b, options, 2 * stream + 1)};
}

Eigen::MatrixXd blend_updates(std::span<const Term> terms, const BlendOptions& options,
                              uint64_t stream) {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  std::vector<float> weights;
  std::vector<Values> values;
  int64_t rows = 0, cols = 0;
  for (const auto& [matrix, weight] : terms) {
    const RowMajor update = (matrix->scale * matrix_b(*matrix) * matrix_a(*matrix)).cast<float>();
    values.emplace_back(update.data(), update.data() + update.size());
    weights.push_back(static_cast<float>(weight));
    rows = update.rows();
    cols = update.cols();
  }
  const Values sum = blend_values(std::move(values), weights, options, stream);
  return Eigen::Map<const RowMajor>(sum.data(), rows, cols).cast<double>();
}

}  // namespace lapidary
