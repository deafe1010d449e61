#include "quantize/folding.h"

#include <algorithm>
#include <cmath>

#include "base/float16.h"

namespace lapidary {

namespace {

RowSource scaled_rows(const WeightMatrix& matrix, std::vector<float> rows,
                      std::vector<float> cols) {
  return {matrix.rows, matrix.cols,
          [&matrix, rows = std::move(rows), cols = std::move(cols)](int64_t row, float* values) {
            best_kernels().dequantize_row(matrix, row, values);
            const float factor = rows.empty() ? 1 : rows[static_cast<size_t>(row)];
            for (int64_t k = 0; k < matrix.cols; ++k)
              values[k] *= factor * (cols.empty() ? 1 : cols[static_cast<size_t>(k)]);
          }};
}

std::vector<float> inverse(std::vector<float> values) {
  for (float& x : values) x = 1 / x;
  return values;
}

}  // namespace

RowSource folded_rows(const WeightMatrix& matrix, const Folding& folding) {
  return scaled_rows(matrix, folding.rows, folding.cols);
}

RowSource unfolded_rows(const WeightMatrix& matrix, const Folding& folding) {
  return scaled_rows(matrix, inverse(folding.rows), inverse(folding.cols));
}

FoldedNorm fold_norm(std::span<const float> weight, DType type, std::span<const float> wanted) {
  FoldedNorm folded;
  for (size_t k = 0; k < weight.size(); ++k) {
    float stored = rounded_to(type, weight[k] / wanted[k] - 1);
    float scale = weight[k] / (1 + stored);
    if (!(scale > 0) || !std::isfinite(scale)) {
      stored = rounded_to(type, weight[k] - 1);
      scale = 1;
    }
    folded.stored.push_back(stored);
    folded.weight.push_back(1 + stored);
    folded.scales.push_back(scale);
  }
  return folded;
}

std::vector<float> channel_scales(std::span<const float> magnitude, double exponent) {
  // A channel that the text never used would get a scale that says nothing.
  constexpr double kSmallest = 1e-4;
  const double largest = std::max<double>(1e-30, *std::ranges::max_element(magnitude));
  std::vector<float> scales;
  for (const float x : magnitude)
    scales.push_back(
        static_cast<float>(std::pow(std::max(double{x} / largest, kSmallest), exponent)));
  const auto [low, high] = std::ranges::minmax_element(scales);
  const float middle = std::sqrt(*low * *high);
  for (float& scale : scales) scale /= middle;
  return scales;
}

std::vector<float> spread_over_queries(std::span<const float> per_value, int heads, int kv_heads) {
  const size_t dim = per_value.size() / static_cast<size_t>(kv_heads);
  std::vector<float> per_query;
  for (int h = 0; h < heads; ++h) {
    const auto values = per_value.subspan(static_cast<size_t>(h / (heads / kv_heads)) * dim, dim);
    per_query.insert(per_query.end(), values.begin(), values.end());
  }
  return per_query;
}

std::vector<float> mean_over_queries(std::span<const float> per_query, int heads, int kv_heads) {
  const size_t dim = per_query.size() / static_cast<size_t>(heads);
  const int sharing = heads / kv_heads;
  std::vector<float> per_value(dim * static_cast<size_t>(kv_heads));
  for (int h = 0; h < heads; ++h)
    for (size_t i = 0; i < dim; ++i)
      per_value[static_cast<size_t>(h / sharing) * dim + i] +=
          per_query[static_cast<size_t>(h) * dim + i] / static_cast<float>(sharing);
  return per_value;
}

}  // namespace lapidary
