#include "generate/divergence.h"

#include <algorithm>
#include <cmath>

#include "generate/logit_rows.h"

namespace lapidary {

namespace {

// A row's sum of e^(logit - highest), and the first id that has the highest.
struct Sum {
  double highest = 0;
  double sum = 0;
  Token top = 0;
};

struct Part {
  Sum a, b;
  double weighted = 0;  // sum of e^(a - highest a) (a - b)
  float difference = 0;
};

Sum highest_of(std::span<const float> row, int64_t first, int64_t last) {
  const auto found = std::max_element(row.begin() + first, row.begin() + last);
  return {.highest = *found, .top = static_cast<Token>(found - row.begin())};
}

Part compare_slice(std::span<const float> a, std::span<const float> b, int64_t first,
                   int64_t last) {
  Part part{.a = highest_of(a, first, last), .b = highest_of(b, first, last)};
  for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
    const double weight = std::exp(a[i] - part.a.highest);
    const double difference = double{a[i]} - double{b[i]};
    part.a.sum += weight;
    part.b.sum += std::exp(b[i] - part.b.highest);
    part.weighted += weight * difference;
    part.difference = std::max(part.difference, std::abs(a[i] - b[i]));
  }
  return part;
}

// Scales `sum` and adds `other`, so that both count from the higher of their highest. Returns the
// factor by which `sum` was scaled and that by which `other` was.
std::pair<double, double> merge(Sum& sum, const Sum& other) {
  const double highest = std::max(sum.highest, other.highest);
  const double mine = std::exp(sum.highest - highest), its = std::exp(other.highest - highest);
  if (other.highest > sum.highest) sum.top = other.top;
  sum.sum = sum.sum * mine + other.sum * its;
  sum.highest = highest;
  return {mine, its};
}

}  // namespace

RowComparison compare_rows(std::span<const float> a, std::span<const float> b, ThreadPool& pool) {
  const auto parts = map_slices<Part>(pool, std::ssize(a), [&](int64_t first, int64_t last) {
    return compare_slice(a, b, first, last);
  });
  Part all = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    const auto [mine, its] = merge(all.a, parts[i].a);
    all.weighted = all.weighted * mine + parts[i].weighted * its;
    merge(all.b, parts[i].b);
    all.difference = std::max(all.difference, parts[i].difference);
  }
  RowComparison row{.top_a = all.a.top, .top_b = all.b.top, .difference = all.difference};
  const auto log_sum = [](const Sum& s) { return s.highest + std::log(s.sum); };
  const double kld = all.weighted / all.a.sum - (log_sum(all.a) - log_sum(all.b));
  row.kld = kld < 0 ? 0 : kld;  // and NaN stays
  return row;
}

}  // namespace lapidary
