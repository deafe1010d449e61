#include "study/head_sums.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

#include "base/fail.h"

namespace lapidary {

namespace {

// 0, 1, 2-3, 4-7, ...
size_t distance_bin(int64_t distance) {
  return static_cast<size_t>(std::bit_width(static_cast<uint64_t>(distance)));
}

}  // namespace

std::vector<int64_t> same_before(std::span<const Token> tokens) {
  std::vector<int64_t> before(tokens.size(), -1);
  std::map<Token, int64_t> last;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (const auto found = last.find(tokens[i]); found != last.end()) before[i] = found->second;
    last[tokens[i]] = static_cast<int64_t>(i);
  }
  return before;
}

double entropy_of(const float* weights, int64_t n) {
  double entropy = 0;
  for (int64_t i = 0; i < n; ++i)
    if (weights[i] > 0) entropy -= double{weights[i]} * std::log(weights[i]);
  return entropy;
}

void HeadSums::add(const PatternBlock& block, int64_t head, std::span<const int64_t> before) {
  by_distance_.resize(
      std::max(by_distance_.size(), distance_bin(block.first_query + block.queries) + 1));
  for (int64_t i = 0; i < block.queries; ++i)
    if (const int64_t query = block.first_query + i; query > 0)
      add_query(block, block.row(head, i), query, before);
}

void HeadSums::add_query(const PatternBlock& block, const float* row, int64_t query,
                         std::span<const int64_t> before) {
  const auto weight = [&](int64_t key) {
    return key >= block.first_key ? row[key - block.first_key] : 0;
  };
  const double entropy = entropy_of(row, query + 1 - block.first_key);
  queries_ += 1;
  entropy_ += entropy;
  effective_ += std::exp(entropy);
  for (int64_t key = block.first_key; key <= query; ++key) {
    const double w = row[key - block.first_key];
    distance_ += w * static_cast<double>(query - key);
    by_distance_[distance_bin(query - key)] += w;
  }
  sink_ += weight(0);
  previous_ += weight(query - 1);
  self_ += weight(query);
  int64_t same = before[static_cast<size_t>(query)];
  if (same < 0) return;
  repeats_ += 1;
  for (; same >= 0; same = before[static_cast<size_t>(same)]) {
    duplicate_ += weight(same);
    if (same + 1 < query) induction_ += weight(same + 1);
  }
}

void HeadSums::add(const HeadSums& other) {
  queries_ += other.queries_;
  entropy_ += other.entropy_;
  effective_ += other.effective_;
  distance_ += other.distance_;
  sink_ += other.sink_;
  previous_ += other.previous_;
  self_ += other.self_;
  repeats_ += other.repeats_;
  duplicate_ += other.duplicate_;
  induction_ += other.induction_;
  by_distance_.resize(std::max(by_distance_.size(), other.by_distance_.size()));
  for (size_t i = 0; i < other.by_distance_.size(); ++i) by_distance_[i] += other.by_distance_[i];
}

HeadFigures HeadSums::figures(int layer, int head) const {
  if (!std::isfinite(distance_)) fail("weights of layer {}, head {} are not finite", layer, head);
  HeadFigures figures{.layer = layer, .head = head};
  figures.entropy = entropy_ / queries_;
  figures.effective_keys = effective_ / queries_;
  figures.distance = distance_ / queries_;
  figures.sink = sink_ / queries_;
  figures.previous = previous_ / queries_;
  figures.self = self_ / queries_;
  if (repeats_ > 0) {
    figures.duplicate = duplicate_ / repeats_;
    figures.induction = induction_ / repeats_;
  }
  for (const double weight : by_distance_) figures.by_distance.push_back(weight / queries_);
  return figures;
}

}  // namespace lapidary
