#include "isolate/tokens.h"

#include <algorithm>
#include <tuple>

#include "isolate/characters.h"

namespace lapidary {
namespace {

void append_utf8(std::string& out, char32_t c) {
  const auto tail = [c](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else {  // lower_case() changes nothing beyond two bytes
    out += {static_cast<char>(0xc0 | (c >> 6)), tail(0)};
  }
}

std::string lowered(std::string_view text) {
  std::string out;
  for (const Character& c : characters(text)) {
    const char32_t lower = lower_case(c.code);
    if (lower == c.code) {
      out += text.substr(c.begin, c.end - c.begin);
    } else {
      append_utf8(out, lower);
    }
  }
  return out;
}

bool is_hyphen(char32_t c) {
  return c == '-' || c == 0x2010 || c == 0x2011;
}

bool is_plural(std::string_view word, std::string_view of) {
  if (word.starts_with(of)) return word.substr(of.size()) == "s" || word.substr(of.size()) == "es";
  return of.size() > 1 && of.ends_with('y') && word.ends_with("ies") &&
         word.substr(0, word.size() - 3) == of.substr(0, of.size() - 1);
}

bool stands_at(std::span<const TextToken> text, std::span<const TextToken> phrase,
               Spelling spelling) {
  for (size_t i = 0; i < phrase.size(); ++i) {
    const TextToken &word = text[i], &wanted = phrase[i];
    if (spelling == Spelling::kExact ? word.text == wanted.text : word.lower == wanted.lower)
      continue;
    const bool plural = spelling == Spelling::kTerm && i + 1 == phrase.size() && word.word &&
                        is_plural(word.lower, wanted.lower);
    if (!plural) return false;
  }
  return true;
}

}  // namespace

std::vector<TextToken> tokenize_text(std::string_view text) {
  std::vector<TextToken> out;
  const auto add = [&](size_t begin, size_t end, bool word) {
    const std::string_view written = text.substr(begin, end - begin);
    out.push_back({begin, end, std::string(written), lowered(written), word});
  };
  const std::vector<Character> all = characters(text);
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t begin = i;
    while (i < all.size() && is_word_character(all[i].code)) ++i;
    if (i > begin) add(all[begin].begin, all[i - 1].end, true);
    if (i == all.size()) break;
    const char32_t mark = all[i].code;
    if (!is_space(mark) && !is_hyphen(mark)) add(all[i].begin, all[i].end, false);
  }
  return out;
}

std::vector<PhrasePlace> find_phrases(std::span<const TextToken> text,
                                      std::span<const std::vector<TextToken>> phrases,
                                      Spelling spelling) {
  std::vector<PhrasePlace> all;
  for (size_t first = 0; first < text.size(); ++first)
    for (size_t phrase = 0; phrase < phrases.size(); ++phrase) {
      const size_t size = phrases[phrase].size();
      if (size > 0 && size <= text.size() - first &&
          stands_at(text.subspan(first, size), phrases[phrase], spelling))
        all.push_back({first, phrase});
    }
  const auto size = [&](const PhrasePlace& place) { return phrases[place.phrase].size(); };
  std::stable_sort(all.begin(), all.end(),
                   [&](const PhrasePlace& a, const PhrasePlace& b) { return size(a) > size(b); });
  std::vector<bool> taken(text.size(), false);
  std::vector<PhrasePlace> out;
  for (const PhrasePlace& place : all) {
    const auto begin = taken.begin() + static_cast<std::ptrdiff_t>(place.first);
    const auto end = begin + static_cast<std::ptrdiff_t>(size(place));
    if (std::find(begin, end, true) != end) continue;
    std::fill(begin, end, true);
    out.push_back(place);
  }
  std::sort(out.begin(), out.end(),
            [](const PhrasePlace& a, const PhrasePlace& b) { return a.first < b.first; });
  return out;
}

}  // namespace lapidary
