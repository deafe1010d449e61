// A text as words and other marks with their places, for finding terms and names in it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

struct TextToken {
  size_t begin, end;  // bytes of the text
  std::string text;   // as written
  std::string lower;  // in small letters
  bool word;          // a run of letters and digits; any other mark stands alone
};

// White space and hyphens only separate: "connection-pool" and "connection pool" are the same.
std::vector<TextToken> tokenize_text(std::string_view text);

// How a word of the text may differ from a phrase's.
enum class Spelling {
  kTerm,    // in the case of letters, and the phrase's last word may stand in the plural
  kFolded,  // in the case of letters
  kExact,
};

// `phrase` in the text, over the tokens [first, first + its length).
struct PhrasePlace {
  size_t first, phrase;
};
// Where phrases stand in a text, in order. Places do not overlap: the longest phrase is served
// first, then the one that stands first, then the first of the list. An empty phrase stands
// nowhere.
std::vector<PhrasePlace> find_phrases(std::span<const TextToken> text,
                                      std::span<const std::vector<TextToken>> phrases,
                                      Spelling spelling);

}  // namespace lapidary
