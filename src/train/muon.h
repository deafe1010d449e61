// Muon: momentum, made orthogonal. https://kellerjordan.github.io/posts/muon/
#pragma once

#include "base/aligned_vector.h"
#include "train/optimizer.h"

namespace lapidary {

// Replaces x, [rows, cols], by nearly U V^T of its singular value decomposition: five steps of the
// quintic Newton-Schulz iteration with the published coefficients take the singular values of
// x / |x| to about 0.7 ... 1.2. In f32, through the products of the kernels: with m the shorter and
// n the longer side, 10 m^2 n + 5 m^3 multiply-adds. `scratch` grows to m n + 2 m^2 floats.
void orthogonalize(Executor& ex, Matrix x, AlignedVector<float>& scratch);

class Muon : public Optimizer {
 public:
  Muon(const OptimizerOptions& options, std::span<const Parameter> parameters);

 private:
  void update(std::span<const Parameter> parameters, double lr, Executor& ex) override;
  void update_matrix(const Parameter& parameter, Moment& buffer, double lr, Executor& ex);

  AlignedVector<float> update_, scratch_;
};

}  // namespace lapidary
