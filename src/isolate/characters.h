// Characters as Python's str has them, which is what the packages of docs/isolation.md count.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

struct Character {
  char32_t code;      // of a byte that is not UTF-8: 0xdc00 + the byte, Python's surrogateescape
  size_t begin, end;  // its bytes
};

std::vector<Character> characters(std::string_view text);

// What str.split() splits at.
bool is_space(char32_t c);

// A letter or a digit. Beyond ASCII by blocks of Unicode: punctuation, symbols and emoji are none.
bool is_word_character(char32_t c);

// Of ASCII, Latin, Greek and Cyrillic capitals the small letter, of anything else itself.
char32_t lower_case(char32_t c);

// The pieces of `text` between runs of white space.
std::vector<std::string_view> split_at_spaces(std::string_view text);

}  // namespace lapidary
