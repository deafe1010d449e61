#include "isolate/numbers.h"

#include <algorithm>
#include <span>
#include <string>

#include "isolate/characters.h"

namespace lapidary {
namespace {

using std::string_view;
// What one key stands for, with a space before and after each.
struct Forms {
  string_view key, forms;
};
constexpr Forms kMagnitudes[] = {
    {"K", " thousand "}, {"M", " million mn "}, {"B", " billion bn "}, {"T", " trillion "}};
constexpr Forms kCurrencies[] = {
    {"$", " usd dollar dollars "}, {"\u20ac", " eur euro euros "}, {"\u00a3", " gbp "}};
// Units that may stand apart from their number. Words of time keep a space in the key.
constexpr Forms kUnits[] = {{"%", " percent pct "},
                            {" second", " second seconds sec secs "},
                            {" minute", " minute minutes min mins "},
                            {" hour", " hour hours hr hrs h "},
                            {" day", " day days "},
                            {" week", " week weeks "},
                            {" month", " month months "},
                            {" year", " year years "}};
constexpr string_view kSymbols =  // units that are their own key
    " ns ms s am pm kb mb gb tb mg g kg ml l mm cm m km hz khz mhz ghz w kw mw kwh mwh mmhg bpm "
    "rps qps ";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool has_form(string_view forms, const std::string& word) {
  return !word.empty() && forms.find(" " + word + " ") != string_view::npos;
}

string_view key_of(const std::string& word, std::span<const Forms> table) {
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Forms& entry) { return has_form(entry.forms, word); });
  return found == table.end() ? string_view() : found->key;
}

// Where a run of letters and digits that starts at `at` ends.
size_t word_end(string_view text, size_t at) {
  for (const Character& c : characters(text.substr(at, 64)))
    if (!is_word_character(c.code)) return at + c.begin;
  return std::min(text.size(), at + 64);  // no unit is that long
}

std::string small(string_view word) {
  std::string out(word);
  for (char& c : out) c = static_cast<char>(c < 0 ? c : lower_case(static_cast<char32_t>(c)));
  return out;
}

// One number: reads on from its first digit, and knows the key of what it has read.
class NumberReader {
 public:
  NumberReader(string_view text, size_t digit) : text_(text), begin_(digit), end_(digit) {
    read_currency();
    read_digits();
    read_magnitude();
    read_unit();
    read_currency_word();
  }

  size_t end() const { return end_; }
  Fact fact() const {
    return {FactKind::kNumber, currency_ + digits_ + magnitude_ + unit_, begin_, end_};
  }
  // A digit by itself says too little: it counts steps and options everywhere.
  bool is_fact() const { return digits_.size() > 1 || !(currency_ + magnitude_ + unit_).empty(); }

 private:
  bool digit_at(size_t i) const { return i < text_.size() && is_digit(text_[i]); }
  bool char_at(size_t i, char c) const { return i < text_.size() && text_[i] == c; }

  void read_currency() {
    for (const string_view symbol : {"$", "\u20ac", "\u00a3", "\u00a5", "\u20b9"})
      if (text_.substr(0, begin_).ends_with(symbol)) {
        currency_ = symbol;
        begin_ -= symbol.size();
        return;
      }
  }

  void read_run() {
    for (; digit_at(end_); ++end_) digits_ += text_[end_];
  }

  // 1,200.50 as 1200.5; versions, times, fractions and dates (14.2.1, 14:30, 120/80) as they are.
  void read_digits() {
    read_run();
    const auto is_group = [&] {
      return char_at(end_, ',') && digit_at(end_ + 1) && digit_at(end_ + 2) && digit_at(end_ + 3) &&
             !digit_at(end_ + 4);
    };
    if (digits_.size() <= 3)
      while (is_group()) {
        ++end_;
        read_run();
      }
    int marks = 0, points = 0;
    for (; end_ < text_.size() && string_view(".:/").find(text_[end_]) != string_view::npos &&
           digit_at(end_ + 1);
         read_run()) {
      ++marks;
      points += text_[end_] == '.';
      digits_ += text_[end_++];
    }
    if (marks != 1 || points != 1) return;
    digits_.erase(digits_.find_last_not_of('0') + 1);
    if (digits_.back() == '.') digits_.pop_back();
  }

  // The word after the number: attached, or one space or hyphen further on.
  struct Next {
    string_view word;
    size_t end;
    bool attached;
  };
  Next next_word() const {
    const bool attached = word_end(text_, end_) > end_;
    size_t from = end_;
    if (!attached && (char_at(from, ' ') || char_at(from, '-'))) ++from;
    if (!attached && text_.substr(from).starts_with("\u00a0")) from += 2;
    const size_t to = word_end(text_, from);
    return {text_.substr(from, to - from), to, attached};
  }

  void read_magnitude() {
    const Next next = next_word();
    string_view found = key_of(small(next.word), kMagnitudes);
    if (found.empty() && next.attached && next.word.size() == 1) {
      const bool sure = string_view("kKMB").find(next.word[0]) != string_view::npos;
      const bool money =
          !currency_.empty() && string_view("mbtT").find(next.word[0]) != string_view::npos;
      const size_t place = string_view("kmbt").find(small(next.word)[0]);
      if (sure || money) found = string_view("KMBT").substr(place, 1);
    }
    if (found.empty()) return;
    magnitude_ = found;
    end_ = next.end;
  }

  void read_unit() {
    size_t sign = end_;
    while (char_at(sign, ' ')) ++sign;
    if (char_at(sign, '%')) {
      unit_ = '%';
      end_ = sign + 1;
      return;
    }
    const Next next = next_word();
    const std::string word = small(next.word);
    const string_view known = key_of(word, kUnits);
    if (known.empty() && !next.attached && !has_form(kSymbols, word)) return;
    unit_ = known.empty() ? word : std::string(known);
    end_ = next.end;
  }

  void read_currency_word() {
    const Next next = next_word();
    const string_view found = key_of(small(next.word), kCurrencies);
    if (found.empty() || !currency_.empty()) return;
    currency_ = found;
    end_ = next.end;
  }

  string_view text_;
  size_t begin_, end_;
  std::string currency_, digits_, magnitude_, unit_;
};

// "12." or "12)" at the start of a line.
bool is_list_item(string_view text, size_t begin, size_t end) {
  const size_t line = text.find_last_not_of(" \t", begin == 0 ? 0 : begin - 1);
  const bool first = begin == 0 || line == string_view::npos || text[line] == '\n';
  return first && is_digit(text[end - 1]) && end + 1 < text.size() &&
         (text[end] == '.' || text[end] == ')') && text[end + 1] == ' ';
}

}  // namespace

std::vector<Fact> find_numbers(string_view text) {
  std::vector<Fact> out;
  size_t done = 0;           // the end of the number before
  bool within_word = false;  // as the 95 of p95
  for (const Character& c : characters(text)) {
    const bool digit = c.code < 0x80 && is_digit(static_cast<char>(c.code));
    const bool after_point = c.begin > 1 && text[c.begin - 1] == '.' && is_digit(text[c.begin - 2]);
    if (digit && !within_word && !after_point && c.begin >= done) {
      const NumberReader number(text, c.begin);
      const Fact fact = number.fact();
      if (number.is_fact() && !is_list_item(text, fact.begin, fact.end)) out.push_back(fact);
      done = number.end();
    }
    within_word = is_word_character(c.code);
  }
  return out;
}

}  // namespace lapidary
