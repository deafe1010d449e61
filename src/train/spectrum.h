// Singular values, and what they say of a matrix' rank.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "gemma/low_rank.h"
#include "tensor/matrix.h"

namespace lapidary {

// All singular values, largest first, from the eigenvalues of m's Gram matrix of the smaller side n
// in double: one of f32 would show nothing below 2^-12 of the largest. What is below about
// sqrt(n) 2^-26 of the largest is rounding. Costs max(N, K) n^2 + 4/3 n^3 multiply-adds.
std::vector<double> singular_values(Matrix m);
// The `count` largest, with their directions; about four times that.
SingularParts largest_parts(Matrix m, int64_t count);

// exp of the entropy of values / sum of values (Roy and Vetterli, 2007): of k equal ones k, and 0
// where all are.
double effective_rank(std::span<const double> values);
// Sum of squares over the largest square; 0 where all are.
double stable_rank(std::span<const double> values);
// How many are above.
int64_t numerical_rank(std::span<const double> values, double threshold);

// Of the principal angles between the spaces that the columns span, the one, in degrees, whose
// cosine squared is the mean of theirs: 0 where one holds the other, 90 where they have nothing in
// common. Nothing when one of them is empty.
std::optional<double> mean_angle(const Eigen::MatrixXd& x, const Eigen::MatrixXd& y);

}  // namespace lapidary
