#include "lapidary/score.h"

#include <cmath>

#include "base/fail.h"
#include "generate/logit_rows.h"

namespace lapidary {

Score score(Session& session, std::span<const Token> tokens,
            const std::function<void(std::span<const float>)>& on_logits, const Watch& watch) {
  LAPIDARY_CHECK(session.length() == 0, "the session has a past");
  if (tokens.empty()) fail("nothing to score: the text is empty");
  Score result;
  result.tokens = std::ssize(tokens);
  double sum = 0;
  session.score(
      tokens,
      [&](int64_t i, std::span<const float> logits) {
        if (on_logits) on_logits(logits);
        if (i + 1 == result.tokens) return;
        const auto next = static_cast<size_t>(tokens[static_cast<size_t>(i + 1)]);
        sum += log_sum_exp(logits) - logits[next];
        ++result.predicted;
      },
      watch);
  if (!std::isfinite(sum)) fail("logits are not finite");
  if (result.predicted > 0) result.nll = sum / static_cast<double>(result.predicted);
  return result;
}

}  // namespace lapidary
