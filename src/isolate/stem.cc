#include "isolate/stem.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

namespace lapidary {
namespace {

using std::string_view;

// y is a consonant where none stands before it; a digit is one everywhere.
std::vector<bool> consonants(string_view word) {
  std::vector<bool> out;
  for (const char c : word)
    out.push_back(c == 'y' ? out.empty() || !out.back()
                           : string_view("aeiou").find(c) == string_view::npos);
  return out;
}

// Porter's m: how often a vowel is followed by a consonant.
int measure(string_view stem) {
  const std::vector<bool> consonant = consonants(stem);
  int m = 0;
  for (size_t i = 1; i < consonant.size(); ++i) m += !consonant[i - 1] && consonant[i];
  return m;
}

bool has_vowel(string_view stem) {
  const std::vector<bool> consonant = consonants(stem);
  return std::find(consonant.begin(), consonant.end(), false) != consonant.end();
}

bool ends_in_consonant(string_view word) {
  return !word.empty() && consonants(word).back();
}

bool ends_in_double_consonant(string_view word) {
  return word.size() >= 2 && word.back() == word[word.size() - 2] && ends_in_consonant(word);
}

// Porter's *o, "hop" but not "how"; with NLTK also a whole word such as "ok".
bool ends_in_cvc(string_view word) {
  const std::vector<bool> consonant = consonants(word);
  const size_t n = word.size();
  if (n == 2) return !consonant[0] && consonant[1];
  return n >= 3 && consonant[n - 3] && !consonant[n - 2] && consonant[n - 1] &&
         string_view("wxy").find(word.back()) == string_view::npos;
}

bool ends_with(string_view word, string_view suffix) {
  return word.ends_with(suffix);
}

string_view without(string_view word, string_view suffix) {
  return word.substr(0, word.size() - suffix.size());
}

struct Rule {
  string_view suffix, replacement;
};

// The first rule whose suffix fits decides: it is applied if its stem measures more than `more`.
std::string apply(std::string word, std::span<const Rule> rules, int more) {
  for (const Rule& rule : rules) {
    if (!ends_with(word, rule.suffix)) continue;
    const string_view stem = without(word, rule.suffix);
    return measure(stem) > more ? std::string(stem).append(rule.replacement) : word;
  }
  return word;
}

std::string strip_plural(const std::string& word) {  // step 1a
  if (ends_with(word, "ies")) return word.substr(0, word.size() - (word.size() == 4 ? 1 : 2));
  if (ends_with(word, "sses")) return word.substr(0, word.size() - 2);
  if (ends_with(word, "ss") || !ends_with(word, "s")) return word;
  return word.substr(0, word.size() - 1);
}

// What is left of a word that lost -ed or -ing is made whole again: "hopp" is hop, "fil" file.
std::string mend(std::string stem) {
  for (const string_view end : {"at", "bl", "iz"})
    if (ends_with(stem, end)) return stem + "e";
  if (ends_in_double_consonant(stem)) {
    if (string_view("lsz").find(stem.back()) == string_view::npos) stem.pop_back();
    return stem;
  }
  if (measure(stem) == 1 && ends_in_cvc(stem)) stem += "e";
  return stem;
}

std::string strip_past(const std::string& word) {  // step 1b
  if (ends_with(word, "ied")) return word.substr(0, word.size() - (word.size() == 4 ? 1 : 2));
  if (ends_with(word, "eed"))
    return measure(without(word, "eed")) > 0 ? word.substr(0, word.size() - 1) : word;
  for (const string_view suffix : {"ed", "ing"})
    if (ends_with(word, suffix) && has_vowel(without(word, suffix)))
      return mend(std::string(without(word, suffix)));
  return word;
}

std::string soften_y(std::string word) {  // step 1c
  if (!ends_with(word, "y")) return word;
  const string_view stem = without(word, "y");
  if (stem.size() > 1 && ends_in_consonant(stem)) word.back() = 'i';
  return word;
}

std::string join_suffixes(std::string word) {  // step 2
  static constexpr Rule kRules[] = {
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},
      {"izer", "ize"},    {"bli", "ble"},     {"entli", "ent"},   {"eli", "e"},
      {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},
      {"alism", "al"},    {"iveness", "ive"}, {"fulness", "ful"}, {"ousness", "ous"},
      {"aliti", "al"},    {"iviti", "ive"},   {"biliti", "ble"},  {"fulli", "ful"}};
  if (ends_with(word, "alli") && measure(without(word, "alli")) > 0)
    word.resize(word.size() - 2);  // -al, which the rules may take further
  // The l of -logi counts as the stem's, so that short stems such as geo- have a measure.
  if (ends_with(word, "logi"))
    return measure(without(word, "ogi")) > 0 ? std::string(without(word, "i")) : word;
  return apply(std::move(word), kRules, 0);
}

std::string strip_derivation(std::string word) {  // step 3
  static constexpr Rule kRules[] = {{"icate", "ic"}, {"ative", ""},  {"alize", "al"},
                                    {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""},
                                    {"ness", ""}};
  return apply(std::move(word), kRules, 0);
}

std::string strip_suffix(std::string word) {  // step 4
  static constexpr Rule kRules[] = {
      {"al", ""},   {"ance", ""}, {"ence", ""},  {"er", ""},   {"ic", ""},  {"able", ""},
      {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""},
      {"ism", ""},  {"ate", ""},  {"iti", ""},   {"ous", ""},  {"ive", ""}, {"ize", ""}};
  // The s or t of -ion belongs to the stem that is measured.
  if (ends_with(word, "sion") || ends_with(word, "tion"))
    return measure(without(word, "ion")) > 1 ? std::string(without(word, "ion")) : word;
  return apply(std::move(word), kRules, 1);
}

std::string tidy(std::string word) {  // steps 5a and 5b
  if (ends_with(word, "e")) {
    const string_view stem = without(word, "e");
    const int m = measure(stem);
    if (m > 1 || (m == 1 && !ends_in_cvc(stem))) word.pop_back();
  }
  if (ends_with(word, "ll") && measure(without(word, "l")) > 1) word.pop_back();
  return word;
}

// Words that the rules would take apart or together wrongly.
string_view irregular(string_view word) {
  static constexpr Rule kIrregular[] = {
      {"sky", "sky"},        {"skies", "sky"},        {"dying", "die"},
      {"lying", "lie"},      {"tying", "tie"},        {"news", "news"},
      {"innings", "inning"}, {"inning", "inning"},    {"outings", "outing"},
      {"outing", "outing"},  {"cannings", "canning"}, {"canning", "canning"},
      {"howe", "howe"},      {"proceed", "proceed"},  {"exceed", "exceed"},
      {"succeed", "succeed"}};
  for (const auto& [form, stem] : kIrregular)
    if (word == form) return stem;
  return {};
}

}  // namespace

std::string porter_stem(std::string word) {
  if (const string_view stem = irregular(word); !stem.empty()) return std::string(stem);
  if (word.size() <= 2) return word;
  word = soften_y(strip_past(strip_plural(word)));
  return tidy(strip_suffix(strip_derivation(join_suffixes(std::move(word)))));
}

}  // namespace lapidary
