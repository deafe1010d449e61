// The matrices of an engine's layers, as studies take them.
#pragma once

#include <functional>
#include <vector>

#include "lapidary/matrix_study.h"

#include "base/aligned_vector.h"
#include "base/thread_pool.h"
#include "gemma/model.h"

namespace lapidary {

struct LayerMatrix {
  MatrixId id;
  const Linear* weights;
};
// In the order of visit_tensors: seven of each layer.
std::vector<LayerMatrix> matrices_of(const Engine& engine);

// The matrix that products take, [rows, cols]: decoded, adapters added.
AlignedVector<float> effective_values(const Linear& matrix);

// Throws Error{kInput} naming the first tensors that one model has and the other has not, or in
// another shape.
void check_same_shapes(const Engine& a, const Engine& b);

// Calls fn(i) for [first, last) on all threads, and reports how many of `total` are done. What is
// left when a stop is asked for is left out, and Error{kInterrupted} thrown.
void for_each_matrix(ThreadPool& pool, int64_t first, int64_t last, int64_t total,
                     const Watch& watch, const std::function<void(size_t i)>& fn);

}  // namespace lapidary
