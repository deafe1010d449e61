#include "isolate/sequences.h"

#include <algorithm>

namespace lapidary {
namespace {

int64_t ngrams_in(std::u32string_view sequence, size_t n) {
  return sequence.size() < n ? 0 : static_cast<int64_t>(sequence.size() - n + 1);
}

}  // namespace

NgramCounts count_ngrams(std::u32string_view sequence, size_t n) {
  NgramCounts counts;
  for (size_t i = 0; i + n <= sequence.size(); ++i) ++counts[sequence.substr(i, n)];
  return counts;
}

NgramOverlap ngram_overlap(std::u32string_view first, std::u32string_view second, size_t n) {
  NgramOverlap out{ngrams_in(first, n), ngrams_in(second, n), 0};
  const NgramCounts a = count_ngrams(first, n), b = count_ngrams(second, n);
  for (const auto& [ngram, count] : a) {
    const auto other = b.find(ngram);
    if (other != b.end()) out.common += std::min(count, other->second);
  }
  return out;
}

int64_t longest_common_subsequence(std::u32string_view first, std::u32string_view second) {
  // best[j]: of first's part so far and second[0, j).
  std::vector<int64_t> best(second.size() + 1, 0);
  for (const char32_t a : first) {
    int64_t diagonal = 0;
    for (size_t j = 0; j < second.size(); ++j) {
      const int64_t above = best[j + 1];
      best[j + 1] = a == second[j] ? diagonal + 1 : std::max(above, best[j]);
      diagonal = above;
    }
  }
  return best.back();
}

}  // namespace lapidary
