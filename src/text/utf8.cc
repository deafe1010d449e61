#include "text/utf8.h"

namespace lapidary::text {

std::string normalized(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      out += kSpacePiece;
    } else {
      out += c;
    }
  }
  return out;
}

std::string shown(std::string_view text) {
  constexpr size_t kMost = 40;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  while (!text.empty()) {
    if (out.size() > kMost) return out + "...'";
    const Utf8Char c = first_utf8(text);
    const auto byte = static_cast<uint8_t>(text[0]);
    const size_t taken = c.size == 0 ? 1 : c.size;
    if (c.size == 0 || c.code < 0x20 || c.code == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      out += text.substr(0, taken);
    }
    text.remove_prefix(taken);
  }
  return out + "'";
}

}  // namespace lapidary::text
