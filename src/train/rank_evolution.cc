#include "train/rank_evolution.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "gemma/layer_matrices.h"
#include "kernels/kernels.h"

namespace lapidary {

namespace {

constexpr size_t kValues = 64;  // singular values that are written down

// Directions of an interval that are compared with those of the next: no more than one merge adds.
// All that factors add between two measurements would not do: b a - b' a' and b' a' - b'' a'' have
// b' and a' in common, whatever was learnt.
int64_t compared_directions(const TrainOptions& o) {
  constexpr int64_t kMost = 8;
  return o.method == TrainMethod::kFull ? kMost : std::min(kMost, o.rank);
}

// What training added to the matrix, [rows, cols].
AlignedVector<float> update_of(const TrainedMatrix& m, const Linear& start) {
  AlignedVector<float> update(m.value.size());
  std::vector<float> from(static_cast<size_t>(m.cols));
  std::vector<double> row(from.size());
  for (int64_t i = 0; i < m.rows; ++i) {
    const auto at = static_cast<size_t>(i * m.cols);
    best_kernels().dequantize_row(start, i, from.data());
    for (size_t j = 0; j < row.size(); ++j) row[j] = double{m.value[at + j]} - from[j];
    for (int64_t r = 0; m.factors != nullptr && r < m.factors->rank; ++r) {
      const double b = m.factors->b[static_cast<size_t>(i * m.factors->rank + r)];
      const float* a = m.factors->a.data() + r * m.cols;
      for (size_t j = 0; j < row.size(); ++j) row[j] += m.factors->scale * b * a[j];
    }
    for (size_t j = 0; j < row.size(); ++j) update[at + j] = static_cast<float>(row[j]);
  }
  return update;
}

double norm(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  return std::sqrt(squares);
}

// Singular values of a matrix of f32 that rounding may have made: what numpy's matrix_rank takes
// for zero, and what the matrix had for rounding before it.
double rounding_of(const TrainedMatrix& m, double largest, double before) {
  return std::max(static_cast<double>(std::max(m.rows, m.cols)) * 0x1p-23 * largest, before);
}

// The first `count` columns of x, one after another; the others are zero.
void keep(const Eigen::MatrixXd& x, int64_t count, AlignedVector<float>& kept) {
  std::ranges::fill(kept, 0.0f);
  for (int64_t k = 0; k < count; ++k)
    for (int64_t i = 0; i < x.rows(); ++i)
      kept[static_cast<size_t>(k * x.rows() + i)] = static_cast<float>(x(i, k));
}

Eigen::MatrixXd columns(const AlignedVector<float>& kept, int64_t count) {
  return Eigen::Map<const Eigen::MatrixXf>(kept.data(), std::ssize(kept) / count, count)
      .cast<double>();
}

StateArray array(std::string name, AlignedVector<float>& values) {
  return {.name = std::move(name),
          .dtype = DType::kF32,
          .elements = std::ssize(values),
          .bytes = std::as_writable_bytes(std::span(values))};
}

}  // namespace

RankEvolution::RankEvolution(const TrainOptions& options, const Model& model,
                             std::vector<TrainedMatrix> matrices)
    : every_(options.rank_every),
      steps_(options.iterations),
      directions_(compared_directions(options)),
      start_(load_model(options.model)),
      matrices_(std::move(matrices)),
      before_(matrices_.size()) {
  const auto started = layer_matrices(start_.config, start_.weights);
  const auto trained = layer_matrices(model.config, model.weights);
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const TrainedMatrix& m = matrices_[i];
    started_.push_back(started.at(m.name));
    addresses_.push_back(values_of(*trained.at(m.name)));
    Before& before = before_[i];
    before.update.resize(m.value.size());
    before.left.resize(static_cast<size_t>(directions_ * m.rows));
    before.right.resize(static_cast<size_t>(directions_ * m.cols));
    if (!m.value.empty()) continue;
    before.factors = *m.factors;
    std::ranges::fill(before.factors.b, 0.0f);
  }
}

bool RankEvolution::due(int64_t step) const {
  return step % every_ == 0 || step == steps_;
}

std::unique_ptr<UpdateCosines> RankEvolution::watch_step(Tape& tape) const {
  return std::make_unique<UpdateCosines>(matrices_, addresses_, tape);
}

std::vector<OrderedJson> RankEvolution::measure(int64_t step, int64_t merges,
                                                std::span<const double> cosines, ThreadPool& pool) {
  std::vector<Ranks> all(matrices_.size());
  pool.parallel_for(std::ssize(matrices_), [&](int64_t first, int64_t last, int) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
      all[i] = matrices_[i].value.empty() ? of_factors(i) : of_values(i, step);
  });
  start_.release_pages();
  const auto angle = [](const std::optional<double>& a) { return a ? Json(*a) : Json(nullptr); };
  std::vector<OrderedJson> lines;
  for (size_t i = 0; i < all.size(); ++i) {
    const Ranks& ranks = all[i];
    const std::span<const double> values = ranks.values;
    const int64_t rank = numerical_rank(values, ranks.threshold);
    const std::span<const double> real = values.first(static_cast<size_t>(rank));
    double squares = 0;
    for (const double value : values) squares += value * value;
    lines.push_back({{"step", step},
                     {"matrix", matrices_[i].name},
                     {"merges", merges},
                     {"frobenius_norm", std::sqrt(squares)},
                     {"effective_rank", effective_rank(real)},
                     {"stable_rank", stable_rank(values)},
                     {"numerical_rank", rank},
                     {"threshold", ranks.threshold},
                     {"left_angle", angle(ranks.left_angle)},
                     {"right_angle", angle(ranks.right_angle)},
                     {"update_cosine", cosines[i]},
                     {"singular_values", values.first(std::min(kValues, values.size()))}});
  }
  return lines;
}

// The values were rounded in each step: by at most 2^-24 of each in one, and in n by sqrt(n) times
// that, where steps are independent. The norm of it all bounds its largest singular value.
RankEvolution::Ranks RankEvolution::of_values(size_t i, int64_t step) {
  const TrainedMatrix& m = matrices_[i];
  Before& before = before_[i];
  const double rounding = 0x1p-24 * norm(m.value);
  const auto after = [&](int64_t steps) {
    return rounding * std::sqrt(static_cast<double>(steps));
  };
  AlignedVector<float> update = update_of(m, *started_[i]);
  Ranks ranks{.values = singular_values({update.data(), m.rows, m.cols})};
  ranks.threshold = rounding_of(m, ranks.values.front(), after(step));
  for (size_t j = 0; j < update.size(); ++j) before.update[j] = update[j] - before.update[j];
  const SingularParts interval = largest_parts({before.update.data(), m.rows, m.cols}, directions_);
  compare(interval, rounding_of(m, interval.values[0], after(std::min(step, every_))), before,
          ranks);
  before.update = std::move(update);
  return ranks;
}

// Factors of f32 change by no less than about 2^-24 of what they are.
RankEvolution::Ranks RankEvolution::of_factors(size_t i) {
  const AdapterMatrix& now = *matrices_[i].factors;
  Before& before = before_[i];
  const Term update[] = {{&now, 1}}, interval[] = {{&now, 1}, {&before.factors, -1}};
  const Eigen::VectorXd values = singular_parts(side_by_side(update)).values;
  const SingularParts parts = singular_parts(side_by_side(interval));
  const double rounding = 0x1p-24 * values.norm();
  Ranks ranks{.values = {values.begin(), values.end()}};
  ranks.threshold = rounding_of(matrices_[i], values[0], rounding);
  compare(parts, rounding_of(matrices_[i], parts.values[0], rounding), before, ranks);
  before.factors = now;
  return ranks;
}

void RankEvolution::compare(const SingularParts& interval, double threshold, Before& before,
                            Ranks& ranks) const {
  int64_t count = 0;
  while (count < std::min<int64_t>(directions_, interval.values.size()) &&
         interval.values[count] > threshold)
    ++count;
  ranks.left_angle = mean_angle(interval.u.leftCols(count), columns(before.left, directions_));
  ranks.right_angle = mean_angle(interval.v.leftCols(count), columns(before.right, directions_));
  keep(interval.u, count, before.left);
  keep(interval.v, count, before.right);
}

std::vector<StateArray> RankEvolution::state() {
  std::vector<StateArray> list;
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const std::string& name = matrices_[i].name;
    Before& before = before_[i];
    if (matrices_[i].value.empty()) {
      list.push_back(array("ranks.a." + name, before.factors.a));
      list.push_back(array("ranks.b." + name, before.factors.b));
    } else {
      list.push_back(array("ranks.update." + name, before.update));
    }
    list.push_back(array("ranks.left." + name, before.left));
    list.push_back(array("ranks.right." + name, before.right));
  }
  return list;
}

}  // namespace lapidary
