// Sums over queries of what a head weighs: the figures of attention_study.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lapidary/attention_study.h"
#include "lapidary/token.h"

#include "study/attention_patterns.h"

namespace lapidary {

// For each token the last position before it that has the same, or -1.
std::vector<int64_t> same_before(std::span<const Token> tokens);

// -sum of w ln w, nats.
double entropy_of(const float* weights, int64_t n);

class HeadSums {
 public:
  // The queries of the block but the first token's. `before` is same_before() of the text.
  void add(const PatternBlock& block, int64_t head, std::span<const int64_t> before);
  void add(const HeadSums& other);
  HeadFigures figures(int layer, int head) const;

 private:
  void add_query(const PatternBlock& block, const float* row, int64_t query,
                 std::span<const int64_t> before);

  double queries_ = 0, entropy_ = 0, effective_ = 0, distance_ = 0;
  double sink_ = 0, previous_ = 0, self_ = 0;
  double repeats_ = 0, duplicate_ = 0, induction_ = 0;  // of queries whose token was there before
  std::vector<double> by_distance_;
};

}  // namespace lapidary
