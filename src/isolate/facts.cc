#include <algorithm>
#include <array>

#include "isolate/characters.h"
#include "isolate/contamination.h"
#include "isolate/numbers.h"
#include "isolate/tokens.h"

namespace lapidary {
namespace {

template <size_t N>
bool is_one_of(std::string_view word, const std::array<std::string_view, N>& list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// Words that are capitalised for where they stand (titles, headings), never as names.
constexpr auto kFunctionWords = std::to_array<std::string_view>(
    {"a",     "about", "after", "all",  "also",  "an",    "and",   "any",   "are",     "as",
     "at",    "be",    "both",  "but",  "by",    "can",   "do",    "each",  "for",     "from",
     "had",   "has",   "have",  "he",   "her",   "here",  "his",   "how",   "however", "i",
     "if",    "in",    "into",  "is",   "it",    "its",   "let",   "more",  "most",    "my",
     "no",    "nor",   "not",   "of",   "on",    "one",   "only",  "or",    "our",     "over",
     "per",   "she",   "so",    "some", "such",  "than",  "that",  "the",   "their",   "then",
     "there", "these", "they",  "this", "those", "to",    "under", "until", "up",      "was",
     "we",    "were",  "what",  "when", "where", "which", "while", "who",   "why",     "will",
     "with",  "you",   "your"});
// No part of the name that follows them; their full stop ends no sentence.
constexpr auto kTitles =
    std::to_array<std::string_view>({"dr", "mr", "mrs", "ms", "prof", "st", "vs"});
// Small words that hold a name together.
constexpr auto kLinks =
    std::to_array<std::string_view>({"of", "de", "del", "der", "la", "van", "von"});
constexpr auto kOpening = std::to_array<std::string_view>({"\"", "'", "\u201c", "(", "*", "#"});
constexpr auto kEnds = std::to_array<std::string_view>({"!", "?", ":", "\u2026", "\u2022"});

bool is_capitalised(const TextToken& token) {
  const char32_t first = characters(token.text)[0].code;
  return lower_case(first) != first;
}

bool is_name_word(const TextToken& token) {
  return is_capitalised(token) && !is_one_of(token.lower, kFunctionWords) &&
         !is_one_of(token.lower, kTitles);
}

class NameFinder {
 public:
  // Words within `numbers`, such as the PM of "5 PM", are no names.
  NameFinder(std::string_view text, std::span<const Fact> numbers)
      : text_(text), tokens_(tokenize_text(text)) {
    for (size_t i = 0, number = 0; i < tokens_.size(); ++i) {
      while (number < numbers.size() && numbers[number].end <= tokens_[i].begin) ++number;
      const bool counted = number < numbers.size() && numbers[number].begin <= tokens_[i].begin;
      fits_.push_back(!counted && is_name_word(tokens_[i]));
      starts_.push_back(starts_sentence(i));
      if (!starts_[i] && fits_[i]) inner_names_.insert(tokens_[i].text);
    }
  }

  std::vector<Fact> find() const {
    std::vector<Fact> out;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (!begins_name(i)) continue;
      const size_t first = i;
      for (size_t next = 0; (next = continued_at(i)) != 0;) i = next;
      const size_t begin = tokens_[first].begin, end = tokens_[i].end;
      if (end - begin > 1) out.push_back({FactKind::kName, key(first, i), begin, end});
    }
    return out;
  }

 private:
  std::string_view gap_before(size_t i) const {
    return text_.substr(tokens_[i - 1].end, tokens_[i].begin - tokens_[i - 1].end);
  }

  // The J and the R of "J. R. Smith", but not the B of "Series B."
  bool is_initial(size_t i) const {
    if (!fits_[i] || tokens_[i].text.size() != 1) return false;
    return i == 0 || !fits_[i - 1] || gap_before(i).find('\n') != std::string_view::npos;
  }

  // Whether the word i follows the end of a sentence or of a line, whatever opens between them.
  bool starts_sentence(size_t i) const {
    const auto opens_line = [&] {
      return i == 0 || gap_before(i).find('\n') != std::string_view::npos;
    };
    while (!opens_line() && is_one_of(tokens_[i - 1].text, kOpening)) --i;
    if (opens_line()) return true;
    const std::string_view before = tokens_[i - 1].text;
    if (before != ".") return is_one_of(before, kEnds);
    if (gap_before(i).empty() || i < 2) return false;  // node.js
    return !is_initial(i - 2) && !is_one_of(tokens_[i - 2].lower, kTitles);
  }

  // The first word of a sentence is a capital's for that alone, unless it is a name elsewhere.
  bool begins_name(size_t i) const {
    return fits_[i] && (!starts_[i] || inner_names_.contains(tokens_[i].text));
  }

  // The token at which a name that has reached i goes on, or 0.
  size_t continued_at(size_t i) const {
    const auto adjoins = [&](size_t j) {
      return j < tokens_.size() && gap_before(j).find('\n') == std::string_view::npos;
    };
    if (!adjoins(i + 1)) return 0;
    if (fits_[i + 1]) return i + 1;
    if (!adjoins(i + 2) || !fits_[i + 2]) return 0;
    const TextToken& between = tokens_[i + 1];
    const bool tight = gap_before(i + 1).empty() && gap_before(i + 2).empty();
    const bool apostrophe = tight && (between.text == "'" || between.text == "\u2019");
    const bool initial = between.text == "." && is_initial(i);
    const bool linked =
        between.text == "&" || is_one_of(between.text, kLinks) || apostrophe || initial;
    return linked ? i + 2 : 0;
  }

  // The tokens from first to last with one space where anything separates them.
  std::string key(size_t first, size_t last) const {
    std::string out = tokens_[first].text;
    for (size_t i = first + 1; i <= last; ++i) {
      if (!gap_before(i).empty()) out += ' ';
      out += tokens_[i].text;
    }
    return out;
  }

  std::string_view text_;
  std::vector<TextToken> tokens_;
  std::vector<bool> fits_;             // of each token: it may be part of a name
  std::vector<bool> starts_;           // of each token: it starts a sentence
  std::set<std::string> inner_names_;  // capitalised where no sentence starts
};

}  // namespace

std::vector<Fact> extract_facts(std::string_view text) {
  std::vector<Fact> out = find_numbers(text);
  const std::vector<Fact> names = NameFinder(text, out).find();
  out.insert(out.end(), names.begin(), names.end());
  std::stable_sort(out.begin(), out.end(),
                   [](const Fact& a, const Fact& b) { return a.begin < b.begin; });
  return out;
}

}  // namespace lapidary
