#include "isolate/agreement.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>

#include "lapidary/error.h"

namespace lapidary {
namespace {

struct Contingency {
  std::map<std::pair<int, int>, int64_t> cells;  // things with both labels
  std::map<int, int64_t> a, b;                   // with either
  double n = 0;
};

Contingency count(std::span<const int> a, std::span<const int> b) {
  LAPIDARY_CHECK(a.size() == b.size(), "labels of different things");
  Contingency out;
  out.n = static_cast<double>(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ++out.cells[{a[i], b[i]}];
    ++out.a[a[i]];
    ++out.b[b[i]];
  }
  return out;
}

// Ordered pairs of different things that share a cluster.
template <class Counts>
double pairs_within(const Counts& counts) {
  double out = 0;
  for (const auto& [label, n] : counts) out += static_cast<double>(n) * static_cast<double>(n - 1);
  return out;
}

double entropy(const std::map<int, int64_t>& counts, double n) {
  double out = 0;
  for (const auto& [label, count] : counts) {
    const double share = static_cast<double>(count) / n;
    out -= share * std::log(share);
  }
  return out;
}

}  // namespace

double adjusted_rand_index(std::span<const int> a, std::span<const int> b) {
  const Contingency table = count(a, b);
  const double both = pairs_within(table.cells);
  const double only_a = pairs_within(table.a) - both, only_b = pairs_within(table.b) - both;
  const double neither = table.n * (table.n - 1) - both - only_a - only_b;
  if (only_a == 0 && only_b == 0) return 1;
  return 2 * (both * neither - only_a * only_b) /
         ((both + only_a) * (only_a + neither) + (both + only_b) * (only_b + neither));
}

double normalized_mutual_information(std::span<const int> a, std::span<const int> b) {
  const Contingency table = count(a, b);
  if (table.a.size() <= 1 && table.b.size() <= 1) return 1;
  double information = 0;
  for (const auto& [labels, n] : table.cells) {
    const auto here = static_cast<double>(n);
    const double by_chance = static_cast<double>(table.a.at(labels.first)) *
                             static_cast<double>(table.b.at(labels.second)) / table.n;
    information += here / table.n * std::log(here / by_chance);
  }
  const double entropies = entropy(table.a, table.n) + entropy(table.b, table.n);
  return std::max(0.0, 2 * information / entropies);
}

}  // namespace lapidary
