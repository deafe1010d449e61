#include "lapidary/memorization.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "lapidary/error.h"

namespace lapidary {

double memorized_bits(double reference_nats, double model_nats) {
  return std::max(0.0, reference_nats - model_nats) / std::numbers::ln2;
}

bool is_extracted(std::span<const uint8_t> counted, std::span<const uint8_t> likeliest,
                  int64_t prefix) {
  LAPIDARY_CHECK(counted.size() == likeliest.size(), "a mark for each token");
  const size_t first = prefix > 0 ? static_cast<size_t>(prefix) : counted.size() / 2;
  bool any = false;
  for (size_t i = first; i < counted.size(); ++i) {
    if (counted[i] != 0 && likeliest[i] == 0) return false;
    any = any || counted[i] != 0;
  }
  return any;
}

Membership infer_membership(std::span<const double> members, std::span<const double> others) {
  LAPIDARY_CHECK(!members.empty() && !others.empty(), "losses of both sides");
  std::vector<std::pair<double, bool>> losses;  // and whether it is a member's
  for (const double loss : members) losses.emplace_back(loss, true);
  for (const double loss : others) losses.emplace_back(loss, false);
  std::ranges::sort(losses);
  const auto all = static_cast<double>(members.size());
  Membership best;
  double found = 0, called = 0, pairs = 0;
  for (size_t i = 0; i < losses.size();) {
    double tied_members = 0, tied_others = 0;
    const double loss = losses[i].first;
    for (; i < losses.size() && losses[i].first == loss; ++i)
      (losses[i].second ? tied_members : tied_others) += 1;
    pairs += tied_others * (found + tied_members / 2);
    found += tied_members;
    called += tied_members + tied_others;
    const double f1 = 2 * found / (called + all);
    if (f1 > best.f1)
      best = {.f1 = f1, .threshold = loss, .precision = found / called, .recall = found / all};
  }
  best.auc = pairs / all / static_cast<double>(others.size());
  return best;
}

double expected_membership_f1(double bits_per_parameter) {
  return std::min(1.0, 0.5 * (1 + 1.34 / (1 + std::exp(0.034 * (bits_per_parameter - 33.14)))));
}

}  // namespace lapidary
