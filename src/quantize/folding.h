// Scales that move from a matrix's input into what makes that input, so that nothing but the
// rounding of the matrix changes.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "generate/row_stream.h"
#include "kernels/kernels.h"

namespace lapidary {

// W'[n, k] = W[n, k] * rows[n] * cols[k]; an empty vector stands for ones.
struct Folding {
  std::vector<float> rows;
  std::vector<float> cols;
};
// The rows of W', or of W from those of W'. The matrix must outlive it.
RowSource folded_rows(const WeightMatrix& matrix, const Folding& folding);
RowSource unfolded_rows(const WeightMatrix& matrix, const Folding& folding);

// A norm whose output is divided by scales, which the columns of the matrices that read it take.
struct FoldedNorm {
  std::vector<float> stored;  // w' as the file holds it, rounded to the file's type
  std::vector<float> weight;  // 1 + w', as LayerWeights holds it
  std::vector<float> scales;  // weight before / weight after: near those wanted, and exact
};
// `weight` is 1 + w. A channel whose scale cannot be had (its weight is or would become zero) keeps
// what it has.
FoldedNorm fold_norm(std::span<const float> weight, DType type, std::span<const float> wanted);

// magnitude^exponent, which makes the largest times the smallest 1.
std::vector<float> channel_scales(std::span<const float> magnitude, double exponent);

// Of the columns of o_proj, where all query heads that read a K/V head share the scales of its
// value channels: [KV * d] to [H * d], and the mean the other way.
std::vector<float> spread_over_queries(std::span<const float> per_value, int heads, int kv_heads);
std::vector<float> mean_over_queries(std::span<const float> per_query, int heads, int kv_heads);

}  // namespace lapidary
