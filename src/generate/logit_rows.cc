#include "generate/logit_rows.h"

#include <cmath>

namespace lapidary {

double log_sum_exp(std::span<const float> logits, ThreadPool& pool) {
  struct Part {
    double highest = 0;
    double sum = 0;  // of e^(logit - highest)
  };
  const auto parts = map_slices<Part>(pool, std::ssize(logits), [&](int64_t first, int64_t last) {
    const float* begin = logits.data() + first;
    const float* end = logits.data() + last;
    Part part{.highest = *std::max_element(begin, end)};
    for (const float* x = begin; x != end; ++x) part.sum += std::exp(*x - part.highest);
    return part;
  });
  double highest = parts.front().highest, sum = 0;
  for (const Part& part : parts) highest = std::max(highest, part.highest);
  for (const Part& part : parts) sum += part.sum * std::exp(part.highest - highest);
  return highest + std::log(sum);
}

}  // namespace lapidary
