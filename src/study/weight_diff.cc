// How the weights of two models differ.
#include <algorithm>
#include <cmath>

#include "lapidary/model_diff.h"

#include "generate/engine_impl.h"
#include "study/matrices.h"
#include "study/top_directions.h"
#include "train/spectrum.h"

namespace lapidary {

namespace {

// Sums over the values of two tensors.
struct Sums {
  double a = 0, change = 0, product = 0;  // squares of A and of B - A; A (B - A)

  void add(std::span<const float> from, std::span<const float> to) {
    for (size_t i = 0; i < from.size(); ++i) {
      const double before = from[i], difference = double{to[i]} - before;
      a += before * before;
      change += difference * difference;
      product += before * difference;
    }
  }
  double size() const { return a > 0 ? std::sqrt(change / a) : 0; }
};

// Mean of the squared cosines of the principal angles.
double overlap(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y) {
  double sum = 0;
  const std::vector<double> cosines = principal_cosines(x, y);
  for (const double c : cosines) sum += c * c;
  return sum / static_cast<double>(cosines.size());
}

// A's values and B's are rounded to f32, by 2^-24 of each at most, and numpy takes what is below
// max(rows, cols) 2^-23 of the largest for zero.
double rounding_of(const MatrixDiff& d, double largest) {
  return std::max(static_cast<double>(std::max(d.rows, d.cols)) * 0x1p-23 * largest,
                  0x1p-24 * d.norm);
}

void measure_change(Matrix change, MatrixDiff& d) {
  const std::vector<double> values = singular_values(change);
  d.stable_rank = stable_rank(values);
  d.numerical_rank = numerical_rank(values, rounding_of(d, values.front()));
  const auto real = std::span(values).first(static_cast<size_t>(d.numerical_rank));
  d.effective_rank = effective_rank(real);
  d.values.assign(real.begin(),
                  real.begin() + std::min<ptrdiff_t>(std::ssize(real), ptrdiff_t{kSpectrumValues}));
}

MatrixDiff diff_of(const LayerMatrix& from, const LayerMatrix& to) {
  const Linear& w = *from.weights;
  MatrixDiff d{.id = from.id, .rows = w.rows, .cols = w.cols};
  AlignedVector<float> a = effective_values(w), b = effective_values(*to.weights);
  Sums sums;
  sums.add(a, b);
  d.norm = std::sqrt(sums.a);
  d.size = sums.size();
  if (sums.change == 0) return d;
  if (sums.a > 0) d.cosine = sums.product / std::sqrt(sums.a * sums.change);
  const SingularParts before = top_directions({a.data(), w.rows, w.cols}, kDiffDirections);
  const SingularParts after = top_directions({b.data(), w.rows, w.cols}, kDiffDirections);
  d.overlap_out = overlap(before.u, after.u);
  d.overlap_in = overlap(before.v, after.v);
  for (size_t i = 0; i < a.size(); ++i) a[i] = b[i] - a[i];
  b = {};
  measure_change({a.data(), w.rows, w.cols}, d);
  return d;
}

// Rows are added up some at a time, whatever the threads.
TensorDiff diff_of_rows(const std::string& name, const Linear& a, const Linear& b,
                        ThreadPool& pool) {
  constexpr int64_t kRows = 1024;
  std::vector<Sums> parts(static_cast<size_t>((a.rows + kRows - 1) / kRows));
  pool.parallel_for(std::ssize(parts), [&](int64_t first, int64_t last, int) {
    std::vector<float> from(static_cast<size_t>(a.cols)), to(from.size());
    for (int64_t part = first; part < last; ++part)
      for (int64_t row = part * kRows; row < std::min(a.rows, (part + 1) * kRows); ++row) {
        best_kernels().dequantize_row(a, row, from.data());
        best_kernels().dequantize_row(b, row, to.data());
        parts[static_cast<size_t>(part)].add(from, to);
      }
  });
  Sums sums;
  for (const Sums& part : parts) {
    sums.a += part.a;
    sums.change += part.change;
  }
  return {name, sums.size()};
}

// Those that are no matrices of layers.
std::vector<TensorDiff> other_diffs(const Model& a, const Model& b, ThreadPool& pool) {
  std::vector<const Linear*> matrices;  // of B, in the same order
  std::vector<const std::vector<float>*> vectors;
  visit_tensors(b.config, b.weights, [&](const std::string&, const auto& field, int64_t, int64_t) {
    if constexpr (std::is_same_v<decltype(field), const Linear&>)
      matrices.push_back(&field);
    else
      vectors.push_back(&field);
  });
  std::vector<TensorDiff> list;
  size_t matrix = 0, vector = 0;
  visit_tensors(a.config, a.weights,
                [&](const std::string& name, const auto& field, int64_t, int64_t) {
                  if constexpr (std::is_same_v<decltype(field), const Linear&>) {
                    const Linear& other = *matrices[matrix++];
                    if (!name.starts_with("model.layers."))
                      list.push_back(diff_of_rows(name, field, other, pool));
                  } else {
                    Sums sums;
                    sums.add(field, *vectors[vector++]);
                    list.push_back({name, sums.size()});
                  }
                });
  const auto tied = [](const Weights& w) { return w.lm_head.data == w.embed_tokens.data; };
  if (!tied(a.weights) || !tied(b.weights))
    list.push_back(diff_of_rows("lm_head.weight", a.weights.lm_head, b.weights.lm_head, pool));
  return list;
}

}  // namespace

WeightDiff diff_weights(const Engine& a, const Engine& b, const Watch& watch) {
  check_same_shapes(a, b);
  const std::vector<LayerMatrix> from = matrices_of(a), to = matrices_of(b);
  WeightDiff diff;
  diff.matrices.resize(from.size());
  ThreadPool pool(a.threads());
  const int64_t count = std::ssize(from);
  for_each_matrix(pool, 0, count, count, watch,
                  [&](size_t i) { diff.matrices[i] = diff_of(from[i], to[i]); });
  diff.others = other_diffs(inside(a).model, inside(b).model, pool);
  inside(a).model.release_pages();
  inside(b).model.release_pages();
  return diff;
}

}  // namespace lapidary
