#include "quantize/budget.h"

#include "base/fail.h"

namespace lapidary {

std::vector<size_t> spend(std::span<const BitChoices> matrices, int64_t budget) {
  std::vector<size_t> chosen(matrices.size(), 0);
  for (const BitChoices& matrix : matrices) budget -= matrix.bytes[0];
  LAPIDARY_CHECK(budget >= 0, "a budget for the fewest bits");
  while (true) {
    double best_rate = 0;
    size_t best_matrix = 0, best_level = 0;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const BitChoices& m = matrices[i];
      for (size_t level = chosen[i] + 1; level < kAffineBits.size(); ++level) {
        const int64_t bytes = m.bytes[level] - m.bytes[chosen[i]];
        if (bytes > budget) break;
        const double rate = (m.loss[chosen[i]] - m.loss[level]) / static_cast<double>(bytes);
        if (!(rate > best_rate)) continue;
        best_rate = rate;
        best_matrix = i;
        best_level = level;
      }
    }
    if (best_rate == 0) return chosen;
    const BitChoices& m = matrices[best_matrix];
    budget -= m.bytes[best_level] - m.bytes[chosen[best_matrix]];
    chosen[best_matrix] = best_level;
  }
}

}  // namespace lapidary
