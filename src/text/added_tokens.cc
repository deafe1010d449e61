#include "text/added_tokens.h"

#include "text/vocabulary.h"

namespace lapidary::text {

int32_t AddedTokens::child_of(int32_t first, uint8_t byte) const {
  int32_t node = first;
  while (node >= 0 && nodes_[static_cast<size_t>(node)].byte != byte)
    node = nodes_[static_cast<size_t>(node)].sibling;
  return node;
}

void AddedTokens::add(std::string_view spelling, Token id, bool control) {
  int32_t node = -1;
  for (const char c : spelling) {
    const auto byte = static_cast<uint8_t>(c);
    const bool at_root = node < 0;
    const int32_t first = at_root ? roots_[byte] : nodes_[static_cast<size_t>(node)].child;
    int32_t next = child_of(first, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({byte, false, kNoToken, -1, at_root ? -1 : first});
      (at_root ? roots_[byte] : nodes_[static_cast<size_t>(node)].child) = next;
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].id = id;
  nodes_[static_cast<size_t>(node)].control = control;
}

std::optional<AddedTokens::Match> AddedTokens::find(std::string_view text, size_t from,
                                                    bool with_control) const {
  for (size_t start = from; start < text.size(); ++start) {
    int32_t node = roots_[static_cast<uint8_t>(text[start])];
    Match longest{start, 0, kNoToken};
    for (size_t end = start + 1; node >= 0; ++end) {
      const Node& n = nodes_[static_cast<size_t>(node)];
      if (n.id != kNoToken && (with_control || !n.control)) longest = {start, end - start, n.id};
      if (end == text.size()) break;
      node = child_of(n.child, static_cast<uint8_t>(text[end]));
    }
    if (longest.size > 0) return longest;
  }
  return std::nullopt;
}

}  // namespace lapidary::text
