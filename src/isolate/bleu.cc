#include <algorithm>
#include <cmath>
#include <string>

#include "isolate/characters.h"
#include "isolate/overlap.h"
#include "isolate/sequences.h"

namespace lapidary {
namespace {

constexpr size_t kOrders = 4;

std::string_view without_spaces_at_end(std::string_view text) {
  const auto all = characters(text);
  const auto last =
      std::find_if(all.rbegin(), all.rend(), [](const Character& c) { return !is_space(c.code); });
  return text.substr(0, last == all.rend() ? 0 : last->end);
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_point(char c) {
  return c == '.' || c == ',';
}
// ASCII's punctuation but the apostrophe, the comma, the dash and the full stop.
bool stands_alone(char c) {
  constexpr std::string_view kAlone = "{|}~[\\]^_` !\"#$%&()*+:;<=>?@/";
  return kAlone.find(c) != std::string_view::npos;
}

// A pass over pairs of neighbours: one for which `fits` is put as `write` says, and passed over.
template <class Fits, class Write>
std::string rewrite_pairs(std::string_view text, Fits fits, Write write) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i + 1 < text.size() && fits(text[i], text[i + 1])) {
      write(out, text[i], text[i + 1]);
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

// Puts spaces around tokens as mteval-v13a does: a full stop or comma stays with a number that it
// stands within, a dash is cut off after a digit. The passes look at single bytes, which tells a
// digit from anything else in UTF-8 too.
std::string tokenized_13a(std::string_view segment) {
  std::string line(without_spaces_at_end(segment));
  replace_all(line, "<skipped>", "");
  replace_all(line, "-\n", "");
  replace_all(line, "\n", " ");
  replace_all(line, "&quot;", "\"");
  replace_all(line, "&amp;", "&");
  replace_all(line, "&lt;", "<");
  replace_all(line, "&gt;", ">");

  std::string spaced;
  for (const char c : " " + line + " ") {
    if (stands_alone(c)) {
      spaced += {' ', c, ' '};
    } else {
      spaced += c;
    }
  }
  spaced = rewrite_pairs(
      spaced, [](char a, char b) { return !is_digit(a) && is_point(b); },
      [](std::string& out, char a, char b) {
        out += {a, ' ', b, ' '};
      });
  spaced = rewrite_pairs(
      spaced, [](char a, char b) { return is_point(a) && !is_digit(b); },
      [](std::string& out, char a, char b) {
        out += {' ', a, ' ', b};
      });
  return rewrite_pairs(
      spaced, [](char a, char b) { return is_digit(a) && b == '-'; },
      [](std::string& out, char a, char b) {
        out += {a, ' ', b, ' '};
      });
}

struct Counts {
  std::array<NgramOverlap, kOrders> ngrams;  // first: the hypothesis
  int64_t hypothesis = 0, reference = 0;     // tokens
};

void count(const TextPair& pair, Counts& counts) {
  const std::string hypothesis = tokenized_13a(pair.hypothesis);
  const std::string reference = tokenized_13a(pair.reference);
  WordNumbers numbers;
  const std::u32string a = numbers.of(split_at_spaces(hypothesis));
  const std::u32string b = numbers.of(split_at_spaces(reference));
  counts.hypothesis += std::ssize(a);
  counts.reference += std::ssize(b);
  for (size_t n = 0; n < kOrders; ++n) {
    const NgramOverlap overlap = ngram_overlap(a, b, n + 1);
    counts.ngrams[n].first += overlap.first;
    counts.ngrams[n].common += overlap.common;
  }
}

// With `effective_order` the geometric mean is over the orders that the hypothesis has n-grams of.
Bleu score(const Counts& counts, bool effective_order) {
  Bleu out{.hypothesis_tokens = counts.hypothesis, .reference_tokens = counts.reference};
  const auto length = static_cast<double>(counts.hypothesis);
  if (counts.hypothesis < counts.reference)
    out.brevity_penalty =
        length > 0 ? std::exp(1 - static_cast<double>(counts.reference) / length) : 0.0;
  if (std::all_of(counts.ngrams.begin(), counts.ngrams.end(),
                  [](const NgramOverlap& overlap) { return overlap.common == 0; }))
    return out;

  double logs = 0, smoothing = 1;
  size_t orders = 0;
  for (; orders < kOrders && counts.ngrams[orders].first > 0; ++orders) {
    const auto total = static_cast<double>(counts.ngrams[orders].first);
    const auto common = static_cast<double>(counts.ngrams[orders].common);
    // Each order without a match counts as half the match of the one before.
    if (common == 0) smoothing *= 2;
    out.precisions[orders] = common == 0 ? 100 / (smoothing * total) : 100 * common / total;
    logs += std::log(out.precisions[orders]);
  }
  if (orders == kOrders || effective_order)
    out.score = out.brevity_penalty * std::exp(logs / static_cast<double>(orders));
  return out;
}

}  // namespace

Bleu sentence_bleu(std::string_view hypothesis, std::string_view reference) {
  Counts counts;
  count({hypothesis, reference}, counts);
  return score(counts, true);
}

Bleu corpus_bleu(std::span<const TextPair> pairs) {
  Counts counts;
  for (const TextPair& pair : pairs) count(pair, counts);
  return score(counts, false);
}

}  // namespace lapidary
