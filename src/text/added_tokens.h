// Finds the added tokens of a tokenizer in text.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "lapidary/token.h"

namespace lapidary::text {

// A set of spellings, each with its token. A search goes from left to right and takes, at the first
// place where a spelling starts, the longest: HF's leftmost-longest Aho-Corasick, and equally
// SentencePiece's matching of user-defined symbols.
class AddedTokens {
 public:
  struct Match {
    size_t start;
    size_t size;
    Token id;
  };

  void add(std::string_view spelling, Token id, bool control);  // spelling not empty
  bool empty() const { return nodes_.empty(); }

  // The first match at or after `from`. Control tokens count only if `with_control`. Costs at most
  // the length of the longest spelling per byte, and one table look-up where none starts.
  std::optional<Match> find(std::string_view text, size_t from, bool with_control) const;

 private:
  // A trie as first child and next sibling: fan-out is small everywhere but at the root.
  struct Node {
    uint8_t byte;
    bool control;
    Token id;  // kNoToken inside
    int32_t child;
    int32_t sibling;
  };
  int32_t child_of(int32_t first, uint8_t byte) const;

  std::vector<Node> nodes_;
  std::array<int32_t, 256> roots_ = [] {
    std::array<int32_t, 256> none;
    none.fill(-1);
    return none;
  }();
};

}  // namespace lapidary::text
