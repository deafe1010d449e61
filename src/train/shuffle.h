// Orders by chance.
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace lapidary {

// The numbers 0 ... n - 1 in an order that depends on n and the generator alone.
inline std::vector<int64_t> shuffled(int64_t n, const CounterRng& rng) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t left = order.size(); left > 1; --left) {
    const auto chosen = static_cast<size_t>(rng.uniform(left) * static_cast<double>(left));
    std::swap(order[left - 1], order[chosen]);
  }
  return order;
}

}  // namespace lapidary
