#include "text/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "lapidary/error.h"

namespace lapidary::text {

namespace {

template <class T>
uint64_t load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// The two halves of the 128-bit product, folded: each input bit reaches the whole result.
uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

uint64_t hash_bytes(std::string_view text) {
  constexpr uint64_t kA = 0xa0761d6478bd642fu;
  constexpr uint64_t kB = 0xe7037ed1a0b428dbu;
  const char* p = text.data();
  size_t n = text.size();
  uint64_t hash = n * kB;
  for (; n > 8; p += 8, n -= 8) hash = fold(hash ^ load<uint64_t>(p), kA);
  uint64_t rest = 0;
  if (n >= 4) {
    rest = load<uint32_t>(p) << 32 | load<uint32_t>(p + n - 4);
  } else if (n > 0) {
    rest = load<uint8_t>(p) << 16 | load<uint8_t>(p + n / 2) << 8 | load<uint8_t>(p + n - 1);
  }
  return fold(hash ^ rest ^ kB, kA);
}

Vocabulary::Vocabulary(size_t expected_pieces)
    : ends_{0}, slots_(std::bit_ceil(2 * expected_pieces + 2), Slot{0, kNoToken}) {
  ends_.reserve(expected_pieces + 1);
  spellings_.reserve(expected_pieces * 8);
}

size_t Vocabulary::slot_of(std::string_view piece, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.id == kNoToken || (slot.tag == tag && this->piece(slot.id) == piece)) return i;
  }
}

Token Vocabulary::find(std::string_view piece) const {
  return slots_[slot_of(piece, hash_bytes(piece))].id;
}

void Vocabulary::find_all(std::span<const std::string_view> pieces, std::span<Token> ids) const {
  constexpr size_t kBlock = 64;
  std::array<uint64_t, kBlock> hashes;
  const size_t mask = slots_.size() - 1;
  for (size_t first = 0; first < pieces.size(); first += kBlock) {
    const size_t n = std::min(kBlock, pieces.size() - first);
    for (size_t i = 0; i < n; ++i) {
      hashes[i] = hash_bytes(pieces[first + i]);
      __builtin_prefetch(&slots_[hashes[i] & mask]);
    }
    for (size_t i = 0; i < n; ++i) {
      const Token likely = slots_[hashes[i] & mask].id;
      if (likely != kNoToken) __builtin_prefetch(&ends_[static_cast<size_t>(likely)]);
    }
    for (size_t i = 0; i < n; ++i) {
      const Token likely = slots_[hashes[i] & mask].id;
      if (likely != kNoToken) __builtin_prefetch(piece(likely).data());
    }
    for (size_t i = 0; i < n; ++i)
      ids[first + i] = slots_[slot_of(pieces[first + i], hashes[i])].id;
  }
}

std::string_view Vocabulary::piece(Token id) const {
  if (id < 0 || id >= size()) return {};
  const auto i = static_cast<size_t>(id);
  return {spellings_.data() + ends_[i], ends_[i + 1] - ends_[i]};
}

Token Vocabulary::add(std::string_view piece) {
  if (2 * ends_.size() > slots_.size()) grow();
  const uint64_t hash = hash_bytes(piece);
  Slot& slot = slots_[slot_of(piece, hash)];
  if (slot.id != kNoToken) return kNoToken;
  LAPIDARY_CHECK(spellings_.size() + piece.size() <= UINT32_MAX, "readers bound the file's size");
  slot = {static_cast<uint32_t>(hash >> 32), size()};
  spellings_ += piece;
  ends_.push_back(static_cast<uint32_t>(spellings_.size()));
  return slot.id;
}

void Vocabulary::grow() {
  std::vector<Slot> old(2 * slots_.size(), Slot{0, kNoToken});
  std::swap(old, slots_);
  for (const Slot& slot : old) {
    if (slot.id == kNoToken) continue;
    const std::string_view spelling = piece(slot.id);
    slots_[slot_of(spelling, hash_bytes(spelling))] = slot;
  }
}

}  // namespace lapidary::text
