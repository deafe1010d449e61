#include "train/directions.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

constexpr uint64_t kDirectionStream = 0x72616e6b;
constexpr int kRounds = 4;  // of subspace iteration: a gap of 2 in singular values becomes 2^8

// Makes the rows orthonormal by Gram-Schmidt, twice, which is enough. Rows that depend on those
// before become zero.
void orthonormalize(Matrix a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    float* row = a.row(i);
    double before = 0;
    for (int64_t k = 0; k < a.cols; ++k) before += double{row[k]} * row[k];
    for (int round = 0; round < 2; ++round)
      for (int64_t j = 0; j < i; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < a.cols; ++k) dot += double{row[k]} * a.row(j)[k];
        for (int64_t k = 0; k < a.cols; ++k) row[k] -= static_cast<float>(dot) * a.row(j)[k];
      }
    double after = 0;
    for (int64_t k = 0; k < a.cols; ++k) after += double{row[k]} * row[k];
    const double scale = after > 1e-10 * before && before > 0 ? 1 / std::sqrt(after) : 0;
    for (int64_t k = 0; k < a.cols; ++k) row[k] *= static_cast<float>(scale);
  }
}

}  // namespace

std::span<float> Projection::room(Directions kind, int64_t rank, int64_t rows, int64_t cols) {
  rank_ = kind == Directions::kRandom ? rank : std::min({rank, rows, cols});
  a_.resize(static_cast<size_t>(rank_ * cols));
  return a_;
}

void Projection::choose(Executor& ex, Directions kind, int64_t rank, Matrix g, uint64_t seed,
                        uint64_t draw) {
  room(kind, rank, g.rows, g.cols);
  const Matrix a{a_.data(), rank_, g.cols};
  const CounterRng rng(mix64(seed ^ mix64(draw)), kDirectionStream);
  if (kind == Directions::kRandom) {
    const float deviation = 1 / std::sqrt(static_cast<float>(rank_));
    for (int64_t i = 0; i < a.size(); ++i)
      a.data[i] = deviation * rng.normal(static_cast<uint64_t>(i));
    return;
  }
  AlignedVector<float> mix(static_cast<size_t>(rank_ * g.rows));
  for (size_t i = 0; i < mix.size(); ++i) mix[i] = rng.normal(i);
  const Matrix left{mix.data(), rank_, g.rows};
  gemm(ex, left, g, a, Into::kOverwrite);
  orthonormalize(a);
  for (int round = 0; kind == Directions::kTop && round < kRounds; ++round) {
    gemm(ex, a, Strided(g).transposed(), left, Into::kOverwrite);
    orthonormalize(left);
    gemm(ex, left, g, a, Into::kOverwrite);
    orthonormalize(a);
  }
}

void Projection::apply(Executor& ex, Matrix g) {
  inner_.resize(static_cast<size_t>(g.rows * rank_));
  const Matrix a{a_.data(), rank_, g.cols}, inner{inner_.data(), g.rows, rank_};
  gemm(ex, g, Strided(a).transposed(), inner, Into::kOverwrite);
  gemm(ex, inner, a, g, Into::kOverwrite);
}

}  // namespace lapidary
