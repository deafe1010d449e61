#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "text/utf8.h"

namespace lapidary::text {

MergeTable::MergeTable(size_t expected)
    : slots_(std::bit_ceil(expected + expected * 3 / 5 + 2),
             Merge{kNoToken, kNoToken, kNoRank, 0}) {}

bool MergeTable::add(Token left, Token right, Token result) {
  if (static_cast<size_t>(size_) * 8 >= slots_.size() * 5) grow();
  const size_t mask = slots_.size() - 1;
  size_t i = slot_of(left, right) & mask;
  for (; slots_[i].rank != kNoRank; i = (i + 1) & mask)
    if (slots_[i].left == left && slots_[i].right == right) return false;
  slots_[i] = {left, right, size_++, result};
  return true;
}

void MergeTable::grow() {
  std::vector<Merge> old(2 * slots_.size(), Merge{kNoToken, kNoToken, kNoRank, 0});
  std::swap(old, slots_);
  const size_t mask = slots_.size() - 1;
  for (const Merge& merge : old) {
    if (merge.rank == kNoRank) continue;
    size_t i = slot_of(merge.left, merge.right) & mask;
    while (slots_[i].rank != kNoRank) i = (i + 1) & mask;
    slots_[i] = merge;
  }
}

void CharacterMap::set(uint32_t code, Token id) {
  uint32_t& page = pages_[code >> 8];
  if (page == 0) {
    tokens_.resize(tokens_.size() + 256, kNoToken);
    page = static_cast<uint32_t>(tokens_.size() >> 8);
  }
  tokens_[size_t{page - 1} << 8 | (code & 0xff)] = id;
}

void JoinSet::add_all(std::string_view piece) {
  if (piece.empty()) return;
  Utf8Char before = first_utf8(piece);
  for (piece.remove_prefix(before.size); !piece.empty();) {
    const Utf8Char c = first_utf8(piece);
    add(before.code, c.code);
    before = c;
    piece.remove_prefix(c.size);
  }
}

size_t JoinSet::slot_of(uint64_t key) const {
  const size_t mask = slots_.size() - 1;
  size_t i = static_cast<size_t>(key * 0x9e3779b97f4a7c15u >> 32) & mask;
  while (slots_[i] != 0 && slots_[i] != key) i = (i + 1) & mask;
  return i;
}

bool JoinSet::contains_slow(uint32_t a, uint32_t b) const {
  const uint64_t key = key_of(a, b);
  return slots_[slot_of(key)] == key;
}

void JoinSet::add(uint32_t a, uint32_t b) {
  if ((a | b) < 0x80) {
    ascii_[a << 7 | b] = true;
    return;
  }
  uint64_t& slot = slots_[slot_of(key_of(a, b))];  // never 0: one of the two is not ASCII
  if (slot != 0) return;
  slot = key_of(a, b);
  if (2 * ++size_ < slots_.size()) return;
  std::vector<uint64_t> old(4 * slots_.size());
  std::swap(old, slots_);
  for (const uint64_t key : old)
    if (key != 0) slots_[slot_of(key)] = key;
}

void Merger::merge(std::vector<Token>& word) {
  constexpr size_t kShort = 32;  // below, scanning beats a heap; it is quadratic, so no further
  word.size() <= kShort ? merge_short(word) : merge_long(word);
}

void Merger::merge_short(std::vector<Token>& word) {
  if (word.size() < 2) return;
  pairs_.clear();
  for (size_t i = 0; i + 1 < word.size(); ++i) pairs_.push_back(merges_.find(word[i], word[i + 1]));
  while (!pairs_.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs_.size(); ++i)
      if (pairs_[i].rank < pairs_[best].rank) best = i;
    if (pairs_[best].rank == MergeTable::kNoRank) return;
    word[best] = pairs_[best].result;
    word.erase(word.begin() + static_cast<ptrdiff_t>(best) + 1);
    pairs_.erase(pairs_.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) pairs_[best - 1] = merges_.find(word[best - 1], word[best]);
    if (best < pairs_.size()) pairs_[best] = merges_.find(word[best], word[best + 1]);
  }
}

namespace {

// For a heap whose top is the candidate to take first.
struct Later {
  template <class Candidate>
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }
};

}  // namespace

void Merger::consider(int32_t left) {
  if (left < 0) return;
  const Symbol& symbol = symbols_[static_cast<size_t>(left)];
  if (symbol.next < 0) return;
  const Token right_id = symbols_[static_cast<size_t>(symbol.next)].id;
  const MergeTable::Merge merge = merges_.find(symbol.id, right_id);
  if (merge.rank == MergeTable::kNoRank) return;
  heap_.push_back({merge.rank, left, symbol.id, right_id, merge.result});
  std::push_heap(heap_.begin(), heap_.end(), Later{});
}

// O(n log n): each of the n - 1 possible merges puts at most two candidates on the heap. A
// candidate one of whose tokens has since been merged is skipped when its turn comes.
void Merger::merge_long(std::vector<Token>& word) {
  const auto n = static_cast<int32_t>(word.size());
  symbols_.resize(word.size());
  for (int32_t i = 0; i < n; ++i)
    symbols_[static_cast<size_t>(i)] = {word[static_cast<size_t>(i)], i - 1,
                                        i + 1 < n ? i + 1 : -1};
  heap_.clear();
  for (int32_t i = 0; i < n; ++i) consider(i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), Later{});
    const Candidate c = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<size_t>(c.left)];
    if (left.id != c.left_id || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    if (right.id != c.right_id) continue;
    left.id = c.result;
    right.id = kNoToken;  // merged away
    left.next = right.next;
    if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = c.left;
    consider(left.previous);
    consider(c.left);
  }
  word.clear();
  for (int32_t i = 0; i >= 0; i = symbols_[static_cast<size_t>(i)].next)
    word.push_back(symbols_[static_cast<size_t>(i)].id);
}

}  // namespace lapidary::text
