#include "train/update_cosine.h"

#include <algorithm>
#include <cmath>

namespace lapidary {

UpdateCosines::UpdateCosines(std::span<const TrainedMatrix> matrices,
                             std::span<const float* const> weights, Tape& tape)
    : matrices_(matrices), tape_(tape), before_(matrices.size()) {
  for (size_t i = 0; i < matrices.size(); ++i) {
    const TrainedMatrix& m = matrices[i];
    Before& before = before_[i];
    before.gradient = tape.gradient(weights[i]);
    if (before.gradient != nullptr) continue;
    std::span<float> room = m.grad;
    if (room.empty()) {
      before.made.resize(static_cast<size_t>(m.rows * m.cols));
      room = before.made;
    }
    std::ranges::fill(room, 0.0f);
    before.gradient = room.data();
    // The tape asks for a matrix by where it begins; how long it is in its stored form is all one.
    tape.track(before.tracked = weights[i], 1, room.data());
  }
}

UpdateCosines::~UpdateCosines() {
  for (const Before& before : before_)
    if (before.tracked != nullptr) tape_.untrack(before.tracked);
}

std::vector<std::span<float>> UpdateCosines::own_gradients() {
  std::vector<std::span<float>> list;
  for (size_t i = 0; i < matrices_.size(); ++i)
    if (before_[i].tracked != nullptr)
      list.push_back(
          {before_[i].gradient, static_cast<size_t>(matrices_[i].rows * matrices_[i].cols)});
  return list;
}

void UpdateCosines::before_step() {
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const TrainedMatrix& m = matrices_[i];
    Before& before = before_[i];
    before.value.assign(m.value.begin(), m.value.end());
    if (m.factors != nullptr) before.a = m.factors->a, before.b = m.factors->b;
    if (!m.projected) continue;
    before.kept.assign(before.gradient, before.gradient + m.rows * m.cols);
    before.gradient = before.kept.data();
  }
}

std::vector<double> UpdateCosines::after_step(ThreadPool& pool) const {
  std::vector<double> cosines(matrices_.size());
  pool.parallel_for(std::ssize(matrices_), [&](int64_t first, int64_t last, int) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
      cosines[i] = cosine(matrices_[i], before_[i]);
  });
  return cosines;
}

double UpdateCosines::cosine(const TrainedMatrix& m, const Before& before) {
  std::vector<double> row(static_cast<size_t>(m.cols));
  double dot = 0, update_squares = 0, gradient_squares = 0;
  for (int64_t i = 0; i < m.rows; ++i) {
    std::ranges::fill(row, 0.0);
    const size_t at = static_cast<size_t>(i * m.cols);
    for (size_t j = 0; j < row.size() && !m.value.empty(); ++j)
      row[j] = double{m.value[at + j]} - before.value[at + j];
    // b a - b0 a0 = (b - b0) a + b0 (a - a0): what hardly changed does not cancel.
    if (m.factors != nullptr) {
      const AdapterMatrix& now = *m.factors;
      for (int64_t r = 0; r < now.rank; ++r) {
        const auto entry = static_cast<size_t>(i * now.rank + r);
        const double b0 = before.b[entry], db = now.b[entry] - b0;
        const float* a = now.a.data() + r * m.cols;
        const float* a0 = before.a.data() + r * m.cols;
        for (size_t j = 0; j < row.size(); ++j)
          row[j] += now.scale * (db * a[j] + b0 * (double{a[j]} - a0[j]));
      }
    }
    for (size_t j = 0; j < row.size(); ++j) {
      const double g = before.gradient[at + j];
      dot -= row[j] * g;
      update_squares += row[j] * row[j];
      gradient_squares += g * g;
    }
  }
  return dot / std::sqrt(update_squares * gradient_squares);  // 0 / 0 is NaN
}

}  // namespace lapidary
