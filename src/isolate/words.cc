#include "isolate/words.h"

#include <algorithm>

#include "isolate/characters.h"
#include "isolate/sequences.h"
#include "isolate/stem.h"

namespace lapidary {
namespace {

// The letter or digit that Python's lower() makes of a character, or 0. Beyond ASCII there are
// two: the sign of Kelvin, and the capital I with a dot, whose dot becomes a mark of its own.
char rouge_letter(char32_t c) {
  if (c == 0x212a) return 'k';
  if (c == 0x130) return 'i';
  const char32_t lower = c < 0x80 ? lower_case(c) : 0;
  const bool counts = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9');
  return counts ? static_cast<char>(lower) : 0;
}

// For each end of the sequence: how far it agrees with the end of the whole (the Z-function of the
// reversed sequence); the largest of them but the whole's own.
int64_t longest_repeated_tail(std::u32string sequence) {
  std::reverse(sequence.begin(), sequence.end());
  const size_t n = sequence.size();
  std::vector<size_t> agrees(n, 0);
  size_t left = 0, right = 0, longest = 0;
  for (size_t i = 1; i < n; ++i) {
    size_t length = i < right ? std::min(right - i, agrees[i - left]) : 0;
    while (i + length < n && sequence[length] == sequence[i + length]) ++length;
    if (i + length > right) left = i, right = i + length;
    agrees[i] = length;
    longest = std::max(longest, length);
  }
  return static_cast<int64_t>(longest);
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text, bool stem) {
  std::vector<std::string> out;
  std::string word;
  const auto close = [&] {
    if (!word.empty()) out.push_back(stem && word.size() > 3 ? porter_stem(word) : word);
    word.clear();
  };
  for (const Character& c : characters(text)) {
    const char letter = rouge_letter(c.code);
    if (letter != 0) word += letter;
    if (letter == 0 || c.code == 0x130) close();
  }
  close();
  return out;
}

Repetition repetition(std::string_view text) {
  const std::u32string sequence = WordNumbers().of(rouge_words(text));
  Repetition out{.words = std::ssize(sequence)};
  const auto kinds = std::ssize(count_ngrams(sequence, 4));
  const int64_t all = std::max<int64_t>(out.words - 3, 0);
  if (all > 0) out.repeated_4grams = static_cast<double>(all - kinds) / static_cast<double>(all);
  out.repeated_tail = longest_repeated_tail(sequence);
  return out;
}

}  // namespace lapidary
