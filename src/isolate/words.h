// The words that ROUGE counts: runs of a-z and 0-9 after lower-casing. "don't" is two of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

// As the default tokenizer of rouge-score; with `stem`, words of more than three letters are
// stemmed (stem.h).
std::vector<std::string> rouge_words(std::string_view text, bool stem = false);

// How much a text repeats itself, in words.
struct Repetition {
  int64_t words = 0;
  double repeated_4grams = 0;  // share of the 4-grams that stood before in the text; 0 of none
  int64_t repeated_tail = 0;   // words of the longest end of the text that also ends earlier in it
};
Repetition repetition(std::string_view text);

}  // namespace lapidary
