// Byte-pair encoding over ids: the tables, and the merging of one word.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lapidary/token.h"

#include "text/vocabulary.h"

namespace lapidary::text {

// Which two neighbouring tokens become which one, and in what order of preference.
class MergeTable {
 public:
  static constexpr int32_t kNoRank = INT32_MAX;
  struct Merge {
    Token left;
    Token right;
    int32_t rank;  // lower goes first; kNoRank when the two do not merge
    Token result;
  };

  explicit MergeTable(size_t expected = 0);
  // False when the pair is there already. The rank is the order of add().
  bool add(Token left, Token right, Token result);
  Merge find(Token left, Token right) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = slot_of(left, right) & mask;; i = (i + 1) & mask) {
      const Merge& slot = slots_[i];
      if ((slot.left == left && slot.right == right) || slot.rank == kNoRank) return slot;
    }
  }
  // Hints the processor that find(left, right) or add() comes soon.
  void prefetch(Token left, Token right) const {
    __builtin_prefetch(&slots_[slot_of(left, right) & (slots_.size() - 1)]);
  }
  int size() const { return size_; }
  std::span<const Merge> slots() const { return slots_; }  // unused ones have kNoRank

 private:
  static size_t slot_of(Token left, Token right) {
    const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
    const uint64_t hash = key * 0x9e3779b97f4a7c15u;
    return static_cast<size_t>(hash >> 32 ^ hash >> 17);
  }
  void grow();

  std::vector<Merge> slots_;  // open addressing; a power of two, at most 5/8 full
  int32_t size_ = 0;
};

// Token of a single character.
class CharacterMap {
 public:
  void set(uint32_t code, Token id);
  Token find(uint32_t code) const {
    const uint32_t page = pages_[code >> 8];
    return page == 0 ? kNoToken : tokens_[size_t{page - 1} << 8 | (code & 0xff)];
  }

 private:
  std::vector<uint32_t> pages_ = std::vector<uint32_t>(0x1100);  // of 256 codes; 0 is none
  std::vector<Token> tokens_;
};

// The pairs of characters that lie next to each other in the result of some merge.
class JoinSet {
 public:
  void add_all(std::string_view piece);
  bool contains(uint32_t a, uint32_t b) const {
    if ((a | b) < 0x80) return ascii_[a << 7 | b];
    return contains_slow(a, b);
  }

 private:
  static uint64_t key_of(uint32_t a, uint32_t b) { return uint64_t{a} << 32 | b; }
  bool contains_slow(uint32_t a, uint32_t b) const;
  size_t slot_of(uint64_t key) const;
  void add(uint32_t a, uint32_t b);

  std::bitset<128 * 128> ascii_;
  std::vector<uint64_t> slots_ = std::vector<uint64_t>(1024);  // open addressing; 0 is free
  size_t size_ = 0;
};

// Replaces the tokens of a word by what its merges make of them: again and again the pair of
// lowest rank, the leftmost among equals. Room for the work is kept from word to word.
class Merger {
 public:
  explicit Merger(const MergeTable& merges) : merges_(merges) {}
  void merge(std::vector<Token>& word);

 private:
  struct Symbol {
    Token id;
    int32_t previous;  // -1 at the start
    int32_t next;      // -1 at the end
  };
  struct Candidate {
    int32_t rank;
    int32_t left;  // index of the left symbol
    Token left_id, right_id, result;
  };
  void merge_short(std::vector<Token>& word);
  void merge_long(std::vector<Token>& word);
  void consider(int32_t left);

  const MergeTable& merges_;
  std::vector<MergeTable::Merge> pairs_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace lapidary::text
