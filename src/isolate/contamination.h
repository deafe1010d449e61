// What of other clusters' vocabulary and facts is found in a text, and where. The rules:
// docs/isolation.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

// The bytes [begin, end) of a text hold the term of that index.
struct TermPlace {
  size_t begin, end;
  size_t term;
};

// Whole words in any case of letters, the plural in -s, -es or -ies included, hyphens as good as
// spaces. Places are in order and do not overlap: of "cache hit rate" and "cache" the longer
// counts.
std::vector<TermPlace> find_terms(std::string_view text, std::span<const std::string> terms);

struct Contamination {
  std::vector<TermPlace> places;  // of foreign terms
  int64_t words = 0;              // as ROUGE counts them (words.h)
  double per_100_words = 0;       // 0 of a text without words
};
// A term of both lists is the text's own, and so is a foreign term within a longer one of its own.
Contamination contamination(std::string_view text, std::span<const std::string> own,
                            std::span<const std::string> foreign);

enum class FactKind { kNumber, kName };

// A number ("$5M", "1200", "90%", "150ms") or a name ("Acme Robotics") in a text.
struct Fact {
  FactKind kind;
  std::string key;  // equal for the same fact written in another way: "5 million dollars" is "$5M"
  size_t begin, end;
};
// In order of place.
std::vector<Fact> extract_facts(std::string_view text);

struct FactSet {
  std::set<std::string> numbers, names;
  size_t size() const { return numbers.size() + names.size(); }
};
FactSet facts_of(std::span<const std::string> texts);
// Those of `others` that stand in none of the texts that may be seen.
FactSet foreign_facts(std::span<const std::string> others, std::span<const std::string> visible);

// Where facts of the set stand in a text: numbers by their keys, names as whole words in the same
// case of letters, also at the start of a sentence.
std::vector<Fact> find_facts(std::string_view text, const FactSet& facts);

// Which of a cluster's terms or facts a text has.
struct Coverage {
  std::vector<std::string> found, missing;
  std::optional<double> share() const;  // none of an empty set
};
Coverage term_coverage(std::string_view text, std::span<const std::string> terms);
Coverage fact_coverage(std::string_view text, const FactSet& facts);

}  // namespace lapidary
