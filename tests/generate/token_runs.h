// Tokens without meaning, and logits to keep.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lapidary/token.h"

#include "base/rng.h"

namespace lapidary {

inline std::vector<Token> random_tokens(int64_t n, int vocab, uint64_t seed = 1) {
  const CounterRng rng(seed);
  std::vector<Token> ids(static_cast<size_t>(n));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<Token>(rng.bits(i) % static_cast<uint64_t>(vocab));
  return ids;
}

inline std::vector<float> copy(std::span<const float> values) {
  return {values.begin(), values.end()};
}

}  // namespace lapidary
