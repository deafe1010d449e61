// What the statistics ask of their input.
#pragma once

#include <cmath>
#include <span>

#include "lapidary/error.h"

#include "base/fail.h"

namespace lapidary {

inline void check_differences(std::span<const double> differences, size_t least) {
  if (differences.size() < least)
    fail("statistics of {} pairs, expected at least {}", differences.size(), least);
  for (size_t i = 0; i < differences.size(); ++i)
    if (!std::isfinite(differences[i]))
      fail("difference of pair {}: {}, expected a finite number", i + 1, differences[i]);
}

}  // namespace lapidary
