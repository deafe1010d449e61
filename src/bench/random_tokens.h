// Tokens that mean nothing, the same for the same model, to measure with.
#pragma once

#include <algorithm>

#include "lapidary/engine.h"

#include "base/rng.h"

namespace lapidary {

// The token of a position is a function of the session's number and the position.
class RandomTokens {
 public:
  explicit RandomTokens(const Engine& engine) : engine_(engine), size_(engine.config().vocab_size) {
    if (engine.has_tokenizer()) size_ = std::min(size_, engine.tokenizer().size());
  }

  std::vector<Token> run(int64_t session, int64_t first, int64_t count) const {
    const CounterRng rng(kSeed, static_cast<uint64_t>(session));
    std::vector<Token> ids;
    for (int64_t position = first; position < first + count; ++position)
      ids.push_back(ordinary(rng.bits(static_cast<uint64_t>(position))));
    return ids;
  }

 private:
  static constexpr uint64_t kSeed = 1;
  static constexpr int kSpecial = 256;  // Gemma's control tokens and unused ids come before

  Token ordinary(uint64_t bits) const {
    const int first = size_ > 2 * kSpecial ? kSpecial : 0;
    Token id = 0;
    do {
      id = first + static_cast<Token>(bits % static_cast<uint64_t>(size_ - first));
      bits = mix64(bits);
    } while (engine_.has_tokenizer() && engine_.tokenizer().is_control(id));
    return id;
  }

  const Engine& engine_;
  int size_;
};

}  // namespace lapidary
