// Two rows of logits over the same vocabulary, compared.
#pragma once

#include <span>

#include "lapidary/token.h"

#include "base/thread_pool.h"

namespace lapidary {

struct RowComparison {
  double kld = 0;              // sum of p_a ln(p_a / p_b), nats; 0 for equal rows
  Token top_a = 0, top_b = 0;  // the likeliest; of equals, the first
  float difference = 0;        // largest magnitude of a - b
};

// The divergence is in double, in one pass over the rows. With A and B the logarithms of the sums,
//   kld = sum of p_a (a - b) - (A - B),
// where nothing is subtracted that is larger than the logits' differences: rounding is about 1e-16
// of those, and a result below 0 by that is made 0. Not finite where a logit is not.
RowComparison compare_rows(std::span<const float> a, std::span<const float> b, ThreadPool& pool);

}  // namespace lapidary
