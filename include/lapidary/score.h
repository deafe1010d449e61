// room: generate
// How surprised a model is by a text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "lapidary/progress.h"
#include "lapidary/session.h"

namespace lapidary {

struct Score {
  int64_t tokens = 0;         // that went in
  int64_t predicted = 0;      // of them, those with a token before: tokens - 1
  std::optional<double> nll;  // mean of -ln p(token | those before) over the predicted, in nats
};

// Appends the tokens to an empty session and reads off how likely each was, teacher forced.
// on_logits gets the logits after each token, f32 [vocab], in order. Throws as Session::score, and
// Error{kInput} for logits that are not finite.
Score score(Session& session, std::span<const Token> tokens,
            const std::function<void(std::span<const float>)>& on_logits = {},
            const Watch& watch = {});

}  // namespace lapidary
