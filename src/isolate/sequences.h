// Texts as sequences of numbers, so that n-grams of words and of characters are counted alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lapidary {

// Gives equal strings equal numbers.
class WordNumbers {
 public:
  template <class Strings>
  std::u32string of(const Strings& words) {
    std::u32string out;
    for (const auto& word : words)
      out += numbers_.try_emplace(std::string(word), static_cast<char32_t>(numbers_.size()))
                 .first->second;
    return out;
  }

 private:
  std::unordered_map<std::string, char32_t> numbers_;
};

using NgramCounts = std::unordered_map<std::u32string_view, int64_t>;  // views into the sequence
NgramCounts count_ngrams(std::u32string_view sequence, size_t n);

// The n-grams of two sequences, and those they share: of each as many as the poorer has.
struct NgramOverlap {
  int64_t first = 0;
  int64_t second = 0;
  int64_t common = 0;
};
NgramOverlap ngram_overlap(std::u32string_view first, std::u32string_view second, size_t n);

// Length of the longest common subsequence: time |first| * |second|.
int64_t longest_common_subsequence(std::u32string_view first, std::u32string_view second);

}  // namespace lapidary
