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

}  // namespace lapidary
