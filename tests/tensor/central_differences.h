// The tape's gradients against central differences of an operation's definition in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/aligned_vector.h"
#include "base/rng.h"
#include "tensor/ops.h"

namespace lapidary {

using Doubles = std::vector<double>;

// Matrices of random values with gradients on a tape.
class Leaves {
 public:
  explicit Leaves(Tape& tape) : tape_(tape) {}

  Matrix add(int64_t rows, int64_t cols, double scale = 1) {
    const auto size = static_cast<size_t>(rows * cols);
    const Matrix m{memory_.emplace_back(size).data(), rows, cols};
    tape_.track(m.data, m.size(), memory_.emplace_back(size).data());
    fill(m, scale);
    return m;
  }
  // Uniform in +-scale.
  void fill(Matrix m, double scale = 1) {
    const CounterRng rng(1, stream_++);
    for (int64_t i = 0; i < m.size(); ++i)
      m.data[i] = static_cast<float>(scale * (2 * rng.uniform(static_cast<uint64_t>(i)) - 1));
  }

 private:
  Tape& tape_;
  std::vector<AlignedVector<float>> memory_;  // vectors that grow move, their values do not
  uint64_t stream_ = 0;
};

inline Doubles doubles_of(Matrix m) {
  return {m.data, m.data + m.size()};
}

// What an operation is: all its results, one after another, as a function of its inputs.
using Definition = std::function<Doubles(const std::vector<Doubles>& inputs)>;

// Every gradient of sum(weights * results) by the inputs. `got` are the tape's, as long as the
// inputs together.
//
// With h = 1e-5 a difference in double is off by h^2 f''' / 6 from the derivative and by 1e-16 / h
// from itself: below 1e-9 of values and derivatives of order one, and f32 rounds to 6e-8. The tape
// adds up products of the weights with what it rounded `roundings` times, of which some cancel in
// the definition: each gradient may be off by so many units of 2^-24 of the largest sum of absolute
// products that a gradient by the same input has.
inline void expect_gradients(const std::vector<Doubles>& inputs, const Definition& definition,
                             const Doubles& weights, const Doubles& got, double roundings) {
  constexpr double h = 1e-5, kDifference = 1e-9;
  std::vector<Doubles> moved = inputs;
  size_t at = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Doubles want(inputs[i].size());
    double largest = 0;
    for (size_t j = 0; j < want.size(); ++j) {
      moved[i][j] = inputs[i][j] + h;
      const Doubles above = definition(moved);
      moved[i][j] = inputs[i][j] - h;
      const Doubles below = definition(moved);
      moved[i][j] = inputs[i][j];
      ASSERT_EQ(above.size(), weights.size());
      double absolute = 0;
      for (size_t k = 0; k < weights.size(); ++k) {
        const double part = weights[k] * (above[k] - below[k]) / (2 * h);
        want[j] += part;
        absolute += std::abs(part);
      }
      largest = std::max(largest, absolute);
    }
    ASSERT_GT(largest, 0) << "input " << i << " has no part in the results";
    const double bound = kDifference + std::ldexp(roundings, -24) * largest;
    for (size_t j = 0; j < want.size(); ++j, ++at) {
      ASSERT_LT(at, got.size());
      ASSERT_TRUE(std::abs(got[at] - want[j]) <= bound)
          << "input " << i << ", value " << j << ": " << got[at] << ", expected " << want[j]
          << " within " << bound;
    }
  }
  EXPECT_EQ(at, got.size());
}

// The same for an operation on matrices with a record on the tape. `inputs` have gradients there;
// `run` returns where the results lie, which may be in the place of inputs.
inline void expect_gradients(Executor& ex, Tape& tape, const std::vector<Matrix>& inputs,
                             const std::function<std::vector<Matrix>()>& run,
                             const Definition& definition, double roundings) {
  std::vector<Doubles> values;
  for (const Matrix& m : inputs) values.push_back(doubles_of(m));
  ex.tape = &tape;
  const std::vector<Matrix> results = run();
  const Doubles exact = definition(values);
  double largest = 0;
  for (const double x : exact) largest = std::max(largest, std::abs(x));
  const CounterRng rng(2, 0);
  Doubles weights;
  for (const Matrix& m : results)
    for (int64_t i = 0; i < m.size(); ++i) {
      ASSERT_LT(weights.size(), exact.size());
      ASSERT_NEAR(m.data[i], exact[weights.size()], std::ldexp(roundings, -24) * largest)
          << "the result itself, value " << weights.size();
      const double draw = 2 * rng.uniform(weights.size()) - 1;
      weights.push_back(static_cast<float>(draw));
      tape.gradient(m).data[i] += static_cast<float>(draw);
    }
  tape.backward();
  ex.tape = nullptr;
  Doubles got;
  for (const Matrix& m : inputs) {
    const Doubles part = doubles_of(tape.gradient(m));
    got.insert(got.end(), part.begin(), part.end());
  }
  expect_gradients(values, definition, weights, got, roundings);
}

}  // namespace lapidary
