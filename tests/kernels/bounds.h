// Rounding-error bounds for sums, and a comparison that a NaN cannot pass.
#pragma once

#include <cmath>
#include <cstdint>

#include <gtest/gtest.h>

namespace lapidary {

constexpr double kEps = 0x1p-24;  // half a unit in the last place of f32 at 1

// |computed - exact| / sum |terms| of a sum whose longest chain of roundings is n.
inline double chain_bound(double n) {
  return n * kEps / (1 - n * kEps);
}

// The chain of the vector kernels over `terms` products: one lane, then the tree, then the end.
inline double dot_bound(int64_t terms) {
  return chain_bound(static_cast<double>((terms + 15) / 16) + 6);
}

inline ::testing::AssertionResult within(double got, double expected, double bound) {
  if (!(std::abs(got - expected) <= bound))
    return ::testing::AssertionFailure()
           << "got " << got << ", expected " << expected << " within " << bound;
  return ::testing::AssertionSuccess();
}

}  // namespace lapidary
