// How much a text has in common with a reference: BLEU, chrF and ROUGE as the packages that
// everybody quotes compute them, to rounding. Definitions: docs/isolation.md.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace lapidary {

struct TextPair {
  std::string_view hypothesis, reference;
};

// sacrebleu's defaults: tokenizer 13a, exponential smoothing, case kept.
struct Bleu {
  double score = 0;                    // 0 ... 100
  std::array<double, 4> precisions{};  // percent, smoothed, of 1- to 4-grams; 0 without any match
  double brevity_penalty = 1;          // of a hypothesis shorter than the reference below 1
  int64_t hypothesis_tokens = 0, reference_tokens = 0;
};
// Of orders that the hypothesis is long enough for (effective_order=True).
Bleu sentence_bleu(std::string_view hypothesis, std::string_view reference);
// Of all pairs together, which is not the mean of theirs; of all four orders.
Bleu corpus_bleu(std::span<const TextPair> pairs);

// chrF2 of 1- to 6-grams of characters, white space left out; 0 ... 100.
double chrf(std::string_view hypothesis, std::string_view reference);
double corpus_chrf(std::span<const TextPair> pairs);

// rouge-score's defaults; shares, 0 ... 1.
struct RougeScore {
  double precision = 0, recall = 0, f1 = 0;
};
struct Rouge {
  RougeScore one, two, l;  // common words, pairs of words, longest common subsequence of words
};
Rouge rouge(std::string_view hypothesis, std::string_view reference, bool stem = false);

}  // namespace lapidary
