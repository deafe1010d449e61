#include "isolate/characters.h"

#include <algorithm>

#include "text/utf8.h"

namespace lapidary {

std::vector<Character> characters(std::string_view text) {
  std::vector<Character> out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const text::Utf8Char c = text::first_utf8(text.substr(at));
    const size_t size = c.size == 0 ? 1 : c.size;
    out.push_back({c.size == 0 ? 0xdc00 + c.code : c.code, at, at + size});
    at += size;
  }
  return out;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

bool is_word_character(char32_t c) {
  constexpr struct {
    char32_t first, last;
  } kRanges[] = {{'0', '9'},         {'A', 'Z'},        {'a', 'z'},       {0xaa, 0xaa},
                 {0xb5, 0xb5},       {0xba, 0xba},      {0xc0, 0xd6},     {0xd8, 0xf6},
                 {0xf8, 0x1fff},     {0x2c00, 0x2dff},  {0x3040, 0xd7ff}, {0xf900, 0xfdff},
                 {0x10000, 0x1efff}, {0x20000, 0x3ffff}};
  return !is_space(c) &&
         std::any_of(std::begin(kRanges), std::end(kRanges),
                     [c](const auto& range) { return c >= range.first && c <= range.last; });
}

char32_t lower_case(char32_t c) {
  const auto within = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  if (within('A', 'Z') || within(0x391, 0x3a9) || within(0x410, 0x42f)) return c + 32;
  if (within(0xc0, 0xde)) return c == 0xd7 ? c : c + 32;
  if (within(0x400, 0x40f)) return c + 80;
  // Latin Extended-A has its pairs side by side, the capital first: from an even code in two of
  // its stretches, from an odd one in the others.
  if (c == 0x178) return 0xff;
  if (within(0x100, 0x12f) || within(0x132, 0x137) || within(0x14a, 0x177)) return c | 1;
  if (within(0x139, 0x148) || within(0x179, 0x17e)) return c + (c & 1);
  return c;
}

std::vector<std::string_view> split_at_spaces(std::string_view text) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  const auto close = [&](size_t end) {
    if (end > begin) out.push_back(text.substr(begin, end - begin));
  };
  for (const Character& c : characters(text)) {
    if (!is_space(c.code)) continue;
    close(c.begin);
    begin = c.end;
  }
  close(text.size());
  return out;
}

}  // namespace lapidary
