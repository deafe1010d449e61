// UTF-8, one character at a time, on bytes that need not be UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lapidary::text {

inline constexpr std::string_view kSpacePiece = "\u2581";  // how pieces spell a space

struct Utf8Char {
  uint32_t code;  // the code point; of an invalid byte, the byte
  uint32_t size;  // bytes; 0 when the first byte does not start a character
};

// The bytes a character takes by its first byte; 0 for a byte that starts none.
constexpr uint32_t utf8_size(uint8_t first) {
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;  // a continuation byte, or an overlong form
  if (first < 0xe0) return 2;
  if (first < 0xf0) return 3;
  return first < 0xf5 ? 4 : 0;
}

// Whether `second` may follow `first`: no overlong forms, surrogates or codes above U+10FFFF.
constexpr bool utf8_second_fits(uint8_t first, uint8_t second) {
  if (first == 0xe0) return second >= 0xa0 && second < 0xc0;
  if (first == 0xed) return second >= 0x80 && second < 0xa0;
  if (first == 0xf0) return second >= 0x90 && second < 0xc0;
  if (first == 0xf4) return second >= 0x80 && second < 0x90;
  return second >= 0x80 && second < 0xc0;
}

// The character at the start of `text`, which is not empty.
constexpr Utf8Char first_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const uint32_t size = utf8_size(first);
  if (size == 0 || size > text.size() || !utf8_second_fits(first, byte(1))) return {first, 0};
  uint32_t code = first & (0x7fu >> size);
  for (uint32_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {first, 0};
    code = code << 6 | (byte(i) & 0x3fu);
  }
  return {code, size};
}

// Bytes of `text` before the first that is not UTF-8; all of them where there is none.
constexpr size_t utf8_bytes(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Char c = first_utf8(text.substr(at));
    if (c.size == 0) break;
    at += c.size;
  }
  return at;
}

constexpr bool is_utf8(std::string_view text) {
  return utf8_bytes(text) == text.size();
}

// Bytes at the end of `text` (0..3) that more bytes could complete to a character.
constexpr size_t unfinished_utf8(std::string_view text) {
  for (size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const auto first = static_cast<uint8_t>(text[text.size() - n]);
    if ((first & 0xc0) == 0x80) continue;
    if (utf8_size(first) <= n) return 0;
    return n == 1 || utf8_second_fits(first, static_cast<uint8_t>(text[text.size() - n + 1])) ? n
                                                                                              : 0;
  }
  return 0;
}

// `text` with its spaces spelled as pieces spell them.
std::string normalized(std::string_view text);

// `text` on one line and short, for messages.
std::string shown(std::string_view text);

}  // namespace lapidary::text
