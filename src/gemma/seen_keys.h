// Which keys the queries of a layer see.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lapidary/config.h"

namespace lapidary {

// A query sees the keys of its timeline at positions [first, end): its own, and so many before and
// after.
struct SeenKeys {
  int64_t before = kAll;
  int64_t after = 0;

  SeenKeys() = default;
  SeenKeys(const Config& c, int layer) {
    if (c.is_sliding(layer))
      before = c.use_bidirectional_attention ? c.sliding_window / 2 : c.sliding_window - 1;
    if (c.use_bidirectional_attention) after = before;
  }

  int64_t first(int64_t query) const { return std::max<int64_t>(0, query - before); }
  int64_t end(int64_t query, int64_t length) const { return std::min(length, query + after + 1); }

  static constexpr int64_t kAll = int64_t{1} << 40;
};

struct KeyRange {
  int64_t first = 0, end = 0;

  int64_t size() const { return end - first; }
  // From the first of this to the last of a later one.
  KeyRange to(KeyRange later) const { return {first, later.end}; }
};

// What the rows of a timeline that is whole in a batch see of each other. With set blocks
// (arXiv 2509.04185) the rows are the tokens at positions 0 ... length - 1, then a noisy copy of
// them at the same positions, in blocks of `block` tokens from position 0 on, the last of which may
// be shorter. A clean row sees as without blocks, and no noisy one. A noisy one sees its own block,
// in both directions, and the clean rows before the block that the layer's window reaches from its
// position. Blocks are no longer than the window: a row's own block is within it.
struct Sight {
  SeenKeys keys;
  int64_t length = 0;
  int64_t block = 0;  // 0: no copy

  int64_t rows() const { return block > 0 ? 2 * length : length; }
  // One past the last row that is clean, or noisy, as this one is.
  int64_t end_of_copy(int64_t row) const { return row < length ? length : rows(); }

  KeyRange past(int64_t row) const {
    if (row < length) return {keys.first(row), keys.end(row, length)};
    return {keys.first(row - length), block_begin(row)};
  }
  KeyRange own_block(int64_t row) const {
    if (row < length) return {};
    const int64_t begin = block_begin(row);
    return {length + begin, length + std::min(length, begin + block)};
  }

 private:
  int64_t block_begin(int64_t row) const { return (row - length) / block * block; }
};

}  // namespace lapidary
