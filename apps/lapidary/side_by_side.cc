// Two texts in columns of a terminal.
#include <algorithm>
#include <iterator>

#include "eval_options.h"
#include "text/utf8.h"

namespace lapidary::cli {

namespace {

constexpr char kMark = '\x01';  // in a text whose control characters were taken out
constexpr std::string_view kMarkShown = "▸";

// Columns that a character takes: East Asian characters and pictures two, accents that combine
// none.
size_t columns_of(uint32_t code) {
  constexpr std::pair<uint32_t, uint32_t> kNone[] = {
      {0x300, 0x36f}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}};
  constexpr std::pair<uint32_t, uint32_t> kTwo[] = {
      {0x1100, 0x115f},   {0x2e80, 0xa4cf},  {0xac00, 0xd7a3},   {0xf900, 0xfaff},
      {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff},
      {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
  const auto in = [code](const auto& ranges) {
    return std::any_of(std::begin(ranges), std::end(ranges),
                       [code](const auto& r) { return r.first <= code && code <= r.second; });
  };
  return in(kNone) ? 0 : in(kTwo) ? 2 : 1;
}

// `text` with lines only as control characters, and a mark after `common` bytes.
std::string cleaned(std::string_view text, size_t common, bool marked) {
  std::string clean;
  const size_t size = text.size();
  for (size_t i = 0; i <= size;) {
    if (i == common && marked) clean += kMark;
    if (i == size) break;
    const text::Utf8Char c = text::first_utf8(text.substr(i));
    if (c.size == 0) {
      clean += "\ufffd";  // a byte that is no character
    } else if (c.code == '\n') {
      clean += '\n';
    } else if (c.code < 0x20 || (c.code >= 0x7f && c.code < 0xa0)) {
      clean += ' ';
    } else {
      clean += text.substr(i, c.size);
    }
    i += std::max<size_t>(1, c.size);
  }
  return clean;
}

struct Line {
  std::string text;
  size_t columns = 0;
};

// Breaks lines at blanks, and words that are longer than a line where it ends.
std::vector<Line> wrapped(std::string_view text, size_t width) {
  std::vector<Line> lines(1);
  size_t blank = std::string::npos, blank_columns = 0;  // after the line's last blank
  while (!text.empty()) {
    const text::Utf8Char c = text::first_utf8(text);
    const std::string_view bytes = text.substr(0, c.size);
    text.remove_prefix(c.size);
    if (c.code == '\n') {
      lines.emplace_back();
      blank = std::string::npos;
      continue;
    }
    const size_t columns = columns_of(c.code);
    if (lines.back().columns + columns > width) {
      Line next;
      if (c.code != ' ' && blank != std::string::npos) {
        Line& full = lines.back();
        next = {full.text.substr(blank), full.columns - blank_columns};
        full = {full.text.substr(0, blank), blank_columns};
      }
      lines.push_back(std::move(next));
      blank = std::string::npos;
      if (c.code == ' ') continue;
    }
    lines.back().text += bytes;
    lines.back().columns += columns;
    if (c.code == ' ') blank = lines.back().text.size(), blank_columns = lines.back().columns;
  }
  return lines;
}

// The line with its mark shown and, from there on, in colour.
std::string shown(const Line& line, size_t width, bool colour, bool& marked) {
  std::string text = line.text;
  const size_t mark = text.find(kMark);
  const size_t from = marked ? 0 : mark;
  if (mark != std::string::npos) text.replace(mark, 1, kMarkShown), marked = true;
  if (colour && from != std::string::npos) text = text.insert(from, "\033[33m") + "\033[0m";
  return text + std::string(width - line.columns, ' ');
}

}  // namespace

std::string side_by_side(std::string_view left, std::string_view right, size_t common, size_t width,
                         bool colour) {
  const size_t column = (width - 3) / 2;
  const bool differ = left != right;
  const std::vector<Line> sides[] = {wrapped(cleaned(left, common, differ), column),
                                     wrapped(cleaned(right, common, differ), column)};
  bool marked[] = {false, false};
  std::string text;
  for (size_t i = 0; i < std::max(sides[0].size(), sides[1].size()); ++i) {
    const auto cell = [&](size_t side) {
      return i < sides[side].size() ? shown(sides[side][i], column, colour, marked[side])
                                    : std::string(column, ' ');
    };
    const std::string first = cell(0);  // in this order: a cell changes what is marked
    std::string line = first + " | " + cell(1);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace lapidary::cli
