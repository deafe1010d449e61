// Products of thin factors, treated without multiplying them out: sums, norms, singular values.
#pragma once

#include <Eigen/Dense>
#include <filesystem>
#include <span>
#include <vector>

#include "gemma/adapter.h"

namespace lapidary {

// weight * scale * b a, in double.
struct Term {
  const AdapterMatrix* matrix;
  double weight = 1;
};

// Throws Error{kInput} naming `path` for DoRA, whose updates are no products of thin factors.
void check_blendable(const Adapter& adapter, const std::filesystem::path& path);

// b a with factors of their own.
struct Factors {
  Eigen::MatrixXd b;  // [N, R]
  Eigen::MatrixXd a;  // [R, K]
};

// The sum of the terms, factors side by side; weights and scales are in `a`, as PEFT puts them.
Factors side_by_side(std::span<const Term> terms);

// u diag(values) vᵀ: singular values, largest first, and orthonormal columns.
struct SingularParts {
  Eigen::MatrixXd u;       // [N, n]
  Eigen::VectorXd values;  // [n]
  Eigen::MatrixXd v;       // [K, n]
};

// Of b a, n = min(N, K, R). Costs O((N + K) R^2).
SingularParts singular_parts(const Factors& product);

// The nearest product of rank at most `rank`: singular values go into b.
// `dropped` and `total` grow by the squares of the singular values that were left out, and of all.
Factors truncated(const Factors& product, int64_t rank, double& dropped, double& total);

// The same of a matrix [N, K] of any rank: its projection onto as many singular vectors of its
// shorter side. Costs O(N K min(N, K)).
Factors nearest(const Eigen::MatrixXd& matrix, int64_t rank, double& dropped, double& total);

// The inner product of two updates, scales included.
double inner_product(const AdapterMatrix& x, const AdapterMatrix& y);

// Cosines of the principal angles between the spaces that the columns of two matrices span.
std::vector<double> principal_cosines(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y);

// The factors of a stored matrix.
Eigen::MatrixXd matrix_a(const AdapterMatrix& m);  // [rank, K]
Eigen::MatrixXd matrix_b(const AdapterMatrix& m);  // [N, rank]

}  // namespace lapidary
