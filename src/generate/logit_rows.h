// Sums over a row of logits, which Gemma 3 has 262,144 of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace lapidary {

// Slices of fixed length, whose parts are put together in order: how many threads there are does
// not change a bit of a sum.
constexpr int64_t kLogitSlice = 1 << 14;

// part(first, last) for each slice of [0, n), in order of the slices.
template <class T, class Fn>
std::vector<T> map_slices(ThreadPool& pool, int64_t n, Fn&& part) {
  std::vector<T> parts(static_cast<size_t>((n + kLogitSlice - 1) / kLogitSlice));
  pool.parallel_for(std::ssize(parts), [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i)
      parts[static_cast<size_t>(i)] = part(i * kLogitSlice, std::min(n, (i + 1) * kLogitSlice));
  });
  return parts;
}

// ln of the sum of e^logit, by the softmax kernel: one thread takes 0.3 ms for Gemma 3's on AVX2.
// Within 1e-5, as a rule 1e-7: f32 sums of 128 terms, each within 2 units in the last
// place, and double above. NaN where a logit is not finite.
double log_sum_exp(std::span<const float> logits);

}  // namespace lapidary
