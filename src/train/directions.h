// Steps of a low rank: gradients confined to a few directions.
#pragma once

#include <cstdint>
#include <span>

#include "lapidary/train.h"

#include "base/aligned_vector.h"
#include "tensor/ops.h"

namespace lapidary {

// Rows a, [rank, K], onto which the gradient g, [N, K], of a matrix is projected: g aᵀ a, a matrix
// of that rank. This is what training b in w + b a with b = 0, by the gradient alone, and merging
// amounts to (papers on one-step LoRA), without the detour.
//   kRandom   normal with the variance 1 / rank, so that the projection is g on average
//   kAligned  orthonormal, spanning `rank` random combinations of g's rows
//   kTop      orthonormal, spanning nearly g's largest right singular vectors: kAligned after a few
//             rounds of subspace iteration
// With rank >= min(N, K) the last two give g itself, but for rounding. `draw` numbers the draws.
class Projection {
 public:
  void choose(Executor& ex, Directions kind, int64_t rank, Matrix g, uint64_t seed, uint64_t draw);
  // g = g aᵀ a
  void apply(Executor& ex, Matrix g);

  // The directions themselves, [rank, K], for a state to save or to restore.
  std::span<float> room(Directions kind, int64_t rank, int64_t rows, int64_t cols);

 private:
  AlignedVector<float> a_, inner_;
  int64_t rank_ = 0;
};

}  // namespace lapidary
