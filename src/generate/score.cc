#include "lapidary/score.h"

#include <algorithm>
#include <cmath>

#include "base/fail.h"

namespace lapidary {

namespace {

// -ln softmax(logits)[id], in double.
double surprise(std::span<const float> logits, Token id) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - highest);
  return highest + std::log(sum) - static_cast<double>(logits[static_cast<size_t>(id)]);
}

}  // namespace

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
        sum += surprise(logits, tokens[static_cast<size_t>(i + 1)]);
        ++result.predicted;
      },
      watch);
  if (!std::isfinite(sum)) fail("logits are not finite");
  if (result.predicted > 0) result.nll = sum / static_cast<double>(result.predicted);
  return result;
}

}  // namespace lapidary
