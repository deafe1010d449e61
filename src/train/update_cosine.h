// Whether a step went where the gradient pointed.
#pragma once

#include <span>
#include <vector>

#include "base/aligned_vector.h"
#include "base/thread_pool.h"
#include "tensor/tape.h"
#include "train/trained_matrix.h"

namespace lapidary {

// For one step: the cosine between what it added to each matrix and minus the gradient of the whole
// matrix, also where only factors of a product are trained. While it lives it holds an f32 copy of
// each matrix that moves, and a gradient of each for which there is none.
class UpdateCosines {
 public:
  // `weights`: where the tape finds each matrix (values_of). Lets the tape track those that it does
  // not, as long as this lives. Matrices and tape must outlive it.
  UpdateCosines(std::span<const TrainedMatrix> matrices, std::span<const float* const> weights,
                Tape& tape);
  ~UpdateCosines();
  UpdateCosines(const UpdateCosines&) = delete;
  UpdateCosines& operator=(const UpdateCosines&) = delete;

  // Those that it has the tape track: of one process, to be added up over all.
  std::vector<std::span<float>> own_gradients();
  // When the gradients are there and nothing has changed them.
  void before_step();
  // When the optimizer is done. NaN where nothing moved, or the gradient is zero.
  std::vector<double> after_step(ThreadPool& pool) const;

 private:
  struct Before {
    AlignedVector<float> value, a, b;
    AlignedVector<float> made;       // the gradient, where the method has no room for one
    AlignedVector<float> kept;       // or before it was projected
    float* gradient = nullptr;       // where it is
    const float* tracked = nullptr;  // by us
  };
  static double cosine(const TrainedMatrix& matrix, const Before& before);

  std::span<const TrainedMatrix> matrices_;
  Tape& tape_;
  std::vector<Before> before_;
};

}  // namespace lapidary
