// Loops over a group of weights in forms that compilers vectorise on any CPU.
#pragma once

#include <cstddef>

namespace lapidary {

// Rounds |x| < 2^22 to a whole number, ties to even.
inline float round_whole(float x) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23
  return (x + kShift) - kShift;
}

// The sum of term(i) over [0, n), n a multiple of 8.
template <class Term>
float sum_in_lanes(size_t n, Term&& term) {
  constexpr size_t kLanes = 8;
  float lanes[kLanes] = {};
  for (size_t i = 0; i < n; i += kLanes)
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace lapidary
