#include "isolate/overlap.h"

#include <algorithm>

#include "isolate/characters.h"
#include "isolate/sequences.h"
#include "isolate/words.h"

namespace lapidary {
namespace {

constexpr size_t kChrfOrders = 6;
using ChrfCounts = std::array<NgramOverlap, kChrfOrders>;  // first: the hypothesis

std::u32string visible_characters(std::string_view text) {
  std::u32string out;
  for (const Character& c : characters(text))
    if (!is_space(c.code)) out += c.code;
  return out;
}

void count(const TextPair& pair, ChrfCounts& counts) {
  const std::u32string hypothesis = visible_characters(pair.hypothesis);
  const std::u32string reference = visible_characters(pair.reference);
  for (size_t n = 0; n < kChrfOrders; ++n) {
    const NgramOverlap overlap = ngram_overlap(hypothesis, reference, n + 1);
    // What has no counterpart in a reference too short for it is not held against a hypothesis.
    if (overlap.second > 0) counts[n].first += overlap.first;
    counts[n].second += overlap.second;
    counts[n].common += overlap.common;
  }
}

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// F2 of precision and recall, each the mean over the orders that both texts have n-grams of.
double chrf(const ChrfCounts& counts) {
  double precision = 0, recall = 0;
  int orders = 0;
  for (const NgramOverlap& order : counts) {
    if (order.first == 0 || order.second == 0) continue;
    precision += ratio(order.common, order.first);
    recall += ratio(order.common, order.second);
    ++orders;
  }
  if (precision + recall == 0) return 0;
  precision /= orders;
  recall /= orders;
  constexpr double kBeta2 = 4;
  return 100 * (1 + kBeta2) * precision * recall / (kBeta2 * precision + recall);
}

RougeScore rouge_score(int64_t common, int64_t hypothesis, int64_t reference) {
  RougeScore out{.precision = ratio(common, hypothesis), .recall = ratio(common, reference)};
  if (common > 0) out.f1 = 2 * out.precision * out.recall / (out.precision + out.recall);
  return out;
}

RougeScore rouge_score(const NgramOverlap& overlap) {
  return rouge_score(overlap.common, overlap.first, overlap.second);
}

}  // namespace

double chrf(std::string_view hypothesis, std::string_view reference) {
  const TextPair pair{hypothesis, reference};
  return corpus_chrf({&pair, 1});
}

double corpus_chrf(std::span<const TextPair> pairs) {
  ChrfCounts counts{};
  for (const TextPair& pair : pairs) count(pair, counts);
  return chrf(counts);
}

Rouge rouge(std::string_view hypothesis, std::string_view reference, bool stem) {
  WordNumbers numbers;
  const std::u32string a = numbers.of(rouge_words(hypothesis, stem));
  const std::u32string b = numbers.of(rouge_words(reference, stem));
  return {rouge_score(ngram_overlap(a, b, 1)), rouge_score(ngram_overlap(a, b, 2)),
          rouge_score(longest_common_subsequence(a, b), std::ssize(a), std::ssize(b))};
}

}  // namespace lapidary
