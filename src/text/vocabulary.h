// The pieces of a tokenizer: id to spelling and back.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/token.h"

namespace lapidary::text {

inline constexpr Token kNoToken = -1;

// 64 bits of a short string; every byte counts.
uint64_t hash_bytes(std::string_view text);

// Ids are given in the order of add(). The spellings lie one after another in a single string and
// the table holds 8 bytes an entry, so 262,144 pieces take 8 MB, and a look-up one cache miss for
// the entry and one for the spelling.
class Vocabulary {
 public:
  explicit Vocabulary(size_t expected_pieces = 0);

  // The new id, or kNoToken when the piece is there already.
  Token add(std::string_view piece);
  Token find(std::string_view piece) const;  // kNoToken when absent
  // find() for many at once: the cache misses of one overlap with those of the next, which makes
  // reading a file's merges three times as fast. ids: [pieces.size()].
  void find_all(std::span<const std::string_view> pieces, std::span<Token> ids) const;
  std::string_view piece(Token id) const;  // empty when there is no such id
  int size() const { return static_cast<int>(ends_.size()) - 1; }

 private:
  struct Slot {
    uint32_t tag;  // upper half of the hash
    Token id;
  };
  size_t slot_of(std::string_view piece, uint64_t hash) const;
  void grow();

  std::string spellings_;
  std::vector<uint32_t> ends_;  // [size + 1]; piece i is spellings_[ends_[i], ends_[i + 1])
  std::vector<Slot> slots_;     // open addressing; a power of two, at most half full
};

}  // namespace lapidary::text
