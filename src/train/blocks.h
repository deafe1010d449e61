// Loops over the elements of many tensors at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace lapidary {

// Elements that one task takes: 64 KiB of f32, a whole number of the blocks of moment.h.
inline constexpr int64_t kTaskElements = 16384;

inline int64_t task_count(int64_t elements) {
  return (elements + kTaskElements - 1) / kTaskElements;
}

// Calls fn(tensor, first, last, task) for pieces that make up all tensors, of the sizes `sizes`. A
// piece has kTaskElements elements, fewer at the end of a tensor, and `task` counts pieces from 0:
// the cut depends on the sizes alone.
template <class Fn>
void for_each_piece(std::span<const int64_t> sizes, ThreadPool& pool, Fn&& fn) {
  std::vector<int64_t> begins{0};  // the first task of each tensor
  for (const int64_t size : sizes) begins.push_back(begins.back() + task_count(size));
  pool.parallel_for(begins.back(), [&](int64_t first_task, int64_t last_task, int) {
    auto tensor = static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), first_task) -
                                      begins.begin() - 1);
    for (int64_t task = first_task; task < last_task; ++task) {
      while (begins[tensor + 1] <= task) ++tensor;
      const int64_t first = (task - begins[tensor]) * kTaskElements;
      fn(tensor, first, std::min(first + kTaskElements, sizes[tensor]), task);
    }
  });
}

}  // namespace lapidary
