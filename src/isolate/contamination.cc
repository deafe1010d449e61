#include "isolate/contamination.h"

#include <algorithm>

#include "isolate/tokens.h"
#include "isolate/words.h"

namespace lapidary {
namespace {

using Phrases = std::vector<std::vector<TextToken>>;

template <class Strings>
Phrases phrases_of(const Strings& strings) {
  Phrases out;
  for (const std::string& string : strings) out.push_back(tokenize_text(string));
  return out;
}

// The bytes of the text that a phrase takes.
TermPlace place_of(const PhrasePlace& found, const std::vector<TextToken>& text,
                   const Phrases& phrases) {
  const size_t last = found.first + phrases[found.phrase].size() - 1;
  return {text[found.first].begin, text[last].end, found.phrase};
}

std::vector<TermPlace> find(std::string_view text, const Phrases& phrases, Spelling spelling) {
  const std::vector<TextToken> tokens = tokenize_text(text);
  std::vector<TermPlace> out;
  for (const PhrasePlace& found : find_phrases(tokens, phrases, spelling))
    out.push_back(place_of(found, tokens, phrases));
  return out;
}

// Each string by itself: here "cache" is found within "cache hit rate" too.
template <class Strings>
std::vector<bool> which_occur(std::string_view text, const Strings& strings, Spelling spelling) {
  const std::vector<TextToken> tokens = tokenize_text(text);
  std::vector<bool> out;
  for (std::vector<TextToken>& phrase : phrases_of(strings))
    out.push_back(!find_phrases(tokens, Phrases{std::move(phrase)}, spelling).empty());
  return out;
}

template <class Strings>
void sort_out(const Strings& strings, const std::vector<bool>& found, Coverage& out) {
  size_t i = 0;
  for (const std::string& string : strings)
    (found[i++] ? out.found : out.missing).push_back(string);
}

std::set<std::string> number_keys(std::string_view text) {
  std::set<std::string> out;
  for (Fact& fact : extract_facts(text))
    if (fact.kind == FactKind::kNumber) out.insert(std::move(fact.key));
  return out;
}

}  // namespace

std::vector<TermPlace> find_terms(std::string_view text, std::span<const std::string> terms) {
  return find(text, phrases_of(terms), Spelling::kTerm);
}

Contamination contamination(std::string_view text, std::span<const std::string> own,
                            std::span<const std::string> foreign) {
  // The own terms go first, and so win where the same words are foreign too.
  std::vector<std::string> terms(own.begin(), own.end());
  terms.insert(terms.end(), foreign.begin(), foreign.end());
  Contamination out;
  out.words = std::ssize(rouge_words(text));
  for (TermPlace place : find_terms(text, terms)) {
    if (place.term < own.size()) continue;
    place.term -= own.size();
    out.places.push_back(place);
  }
  if (out.words > 0)
    out.per_100_words =
        100 * static_cast<double>(out.places.size()) / static_cast<double>(out.words);
  return out;
}

FactSet facts_of(std::span<const std::string> texts) {
  FactSet out;
  for (const std::string& text : texts)
    for (Fact& fact : extract_facts(text))
      (fact.kind == FactKind::kNumber ? out.numbers : out.names).insert(std::move(fact.key));
  return out;
}

FactSet foreign_facts(std::span<const std::string> others, std::span<const std::string> visible) {
  FactSet out = facts_of(others);
  for (const std::string& text : visible) {
    for (const std::string& key : number_keys(text)) out.numbers.erase(key);
    const std::vector<bool> seen = which_occur(text, out.names, Spelling::kFolded);
    size_t i = 0;
    std::erase_if(out.names, [&](const std::string&) { return seen[i++]; });
  }
  return out;
}

std::vector<Fact> find_facts(std::string_view text, const FactSet& facts) {
  std::vector<Fact> out;
  for (Fact& fact : extract_facts(text))
    if (fact.kind == FactKind::kNumber && facts.numbers.contains(fact.key))
      out.push_back(std::move(fact));
  const std::vector<std::string> names(facts.names.begin(), facts.names.end());
  for (const TermPlace& place : find(text, phrases_of(names), Spelling::kExact))
    out.push_back({FactKind::kName, names[place.term], place.begin, place.end});
  std::sort(out.begin(), out.end(), [](const Fact& a, const Fact& b) { return a.begin < b.begin; });
  return out;
}

std::optional<double> Coverage::share() const {
  const size_t all = found.size() + missing.size();
  if (all == 0) return std::nullopt;
  return static_cast<double>(found.size()) / static_cast<double>(all);
}

Coverage term_coverage(std::string_view text, std::span<const std::string> terms) {
  Coverage out;
  sort_out(terms, which_occur(text, terms, Spelling::kTerm), out);
  return out;
}

Coverage fact_coverage(std::string_view text, const FactSet& facts) {
  const std::set<std::string> keys = number_keys(text);
  Coverage out;
  for (const std::string& number : facts.numbers)
    (keys.contains(number) ? out.found : out.missing).push_back(number);
  sort_out(facts.names, which_occur(text, facts.names, Spelling::kExact), out);
  return out;
}

}  // namespace lapidary
