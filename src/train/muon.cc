#include "train/muon.h"

#include <algorithm>
#include <cmath>

#include "lapidary/error.h"

#include "tensor/gemm.h"
#include "train/adamw.h"
#include "train/gradients.h"

namespace lapidary {

namespace {

constexpr int kIterations = 5;
constexpr float kA = 3.4445f, kB = -4.7750f,
                kC = 2.0315f;  // of a X + (b A + c A A) X, A = X X^T, or turned over
constexpr double kLeastNorm = 1e-7;

// fn(i) for [0, count), shared out to threads.
template <class Fn>
void for_each_element(Executor& ex, int64_t count, Fn&& fn) {
  ex.for_each(count, 1, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) fn(i);
  });
}

double frobenius_norm(Executor& ex, Matrix x) {
  Parameter view;
  view.grad = {x.data, static_cast<size_t>(x.size())};
  return gradient_norm({&view, 1}, ex.pool());
}

// One step on x. y is of the same size; a and b are square, as the shorter side of x is long.
void iterate(Executor& ex, Matrix x, Matrix y, Matrix a, Matrix b) {
  const Strided as_is(x), turned = as_is.transposed();
  const bool tall = x.rows > x.cols;
  gemm(ex, tall ? turned : as_is, tall ? as_is : turned, a, Into::kOverwrite);
  gemm(ex, a, a, b, Into::kOverwrite);
  for_each_element(ex, b.size(), [&](int64_t i) { b.data[i] = kB * a.data[i] + kC * b.data[i]; });
  gemm(ex, tall ? x : b, tall ? b : x, y, Into::kOverwrite);
  for_each_element(ex, x.size(), [&](int64_t i) { x.data[i] = kA * x.data[i] + y.data[i]; });
}

}  // namespace

void orthogonalize(Executor& ex, Matrix x, AlignedVector<float>& scratch) {
  const int64_t side = std::min(x.rows, x.cols);
  const auto needed = static_cast<size_t>(x.size() + 2 * side * side);
  if (scratch.size() < needed) scratch.resize(needed);
  const Matrix y{scratch.data(), x.rows, x.cols};
  const Matrix a{y.data + y.size(), side, side}, b{a.data + a.size(), side, side};

  const auto scale = static_cast<float>(1 / std::max(kLeastNorm, frobenius_norm(ex, x)));
  for_each_element(ex, x.size(), [&](int64_t i) { x.data[i] *= scale; });
  for (int i = 0; i < kIterations; ++i) iterate(ex, x, y, a, b);
}

Muon::Muon(const OptimizerOptions& options, std::span<const Parameter> parameters)
    : Optimizer(options, parameters) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].matrix()) {
      add_moment(i, "momentum_buffer", MomentType::kF32);
    } else {
      add_moment(i, "exp_avg", MomentType::kF32);
      add_moment(i, "exp_avg_sq", MomentType::kF32);
    }
  }
}

void Muon::update(std::span<const Parameter> parameters, double lr, Executor& ex) {
  LAPIDARY_CHECK(ex.activations() == Activations::kFloat, "weights are trained in f32");
  std::vector<AdamWItem> others;
  for (size_t i = 0; i < parameters.size(); ++i) {
    std::vector<Moment>& moments = entries_[i].moments;
    if (parameters[i].matrix())
      update_matrix(parameters[i], moments[0], lr, ex);
    else
      others.push_back({&parameters[i], &moments[0], &moments[1], steps_[i]});
  }
  adamw_step(others, options_, lr, ex.pool());
}

void Muon::update_matrix(const Parameter& p, Moment& buffer, double lr, Executor& ex) {
  LAPIDARY_CHECK(p.rows * p.cols == p.size(), "a matrix has rows times columns values");
  if (static_cast<int64_t>(update_.size()) < p.size()) update_.resize(p.value.size());
  const auto momentum = static_cast<float>(options_.muon_momentum);
  const auto rest = static_cast<float>(1 - options_.muon_momentum);
  float* const average = buffer.floats();
  for_each_element(ex, p.size(), [&](int64_t i) {
    const float g = p.grad[static_cast<size_t>(i)];
    average[i] += rest * (g - average[i]);
    update_[static_cast<size_t>(i)] = average[i] - (average[i] - g) * (1 - momentum);
  });
  orthogonalize(ex, {update_.data(), p.rows, p.cols}, scratch_);
  const double longer = static_cast<double>(std::max(p.rows, p.cols));
  const auto rate = static_cast<float>(-lr * 0.2 * std::sqrt(longer));
  const auto keep = static_cast<float>(1 - lr * (p.decay ? options_.weight_decay : 0));
  for_each_element(ex, p.size(), [&](int64_t i) {
    float& value = p.value[static_cast<size_t>(i)];
    value = value * keep + rate * update_[static_cast<size_t>(i)];
  });
}

}  // namespace lapidary
