// What a model says at the places of a block.
#pragma once

#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/session.h"

namespace lapidary {

using Rows = std::map<int64_t, std::vector<float>>;  // logits by place

inline std::vector<int64_t> up_to(size_t n) {
  std::vector<int64_t> all(n);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// What the model says at each place of a block after `tokens`, which the session keeps.
inline Rows look(Session& session, std::span<const Token> tokens, std::span<const Token> block) {
  Rows rows;
  const std::vector<int64_t> all = up_to(block.size());
  StepItem item{.session = &session, .tokens = tokens};
  item.block = block;
  item.block_rows = all;
  item.on_block = [&](int64_t i, std::span<const float> logits) {
    rows[i].assign(logits.begin(), logits.end());
  };
  session.engine().step({&item, 1});
  return rows;
}

}  // namespace lapidary
