#include "study/text_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/fail.h"
#include "generate/logit_rows.h"

namespace lapidary {

double TextLoss::mean() const {
  return std::accumulate(nll.begin(), nll.end(), 0.0) / static_cast<double>(nll.size());
}

double TextLoss::agreement(const TextLoss& other) const {
  double same = 0;
  for (size_t i = 0; i < top.size(); ++i) same += top[i] == other.top[i] ? 1 : 0;
  return same / static_cast<double>(top.size());
}

TextLoss text_loss(const Engine& engine, std::span<const float> stream,
                   std::span<const Token> tokens) {
  const size_t width = stream.size() / tokens.size(), predicted = tokens.size() - 1;
  TextLoss loss{.nll = std::vector<double>(predicted), .top = std::vector<Token>(predicted)};
  engine.read_stream(stream.first(predicted * width), [&](int64_t i, std::span<const float> l) {
    const auto row = static_cast<size_t>(i);
    loss.nll[row] = log_sum_exp(l) - l[static_cast<size_t>(tokens[row + 1])];
    loss.top[row] = static_cast<Token>(std::ranges::max_element(l) - l.begin());
  });
  if (!std::isfinite(loss.mean())) fail("logits are not finite");
  return loss;
}

void check_predicts(std::span<const Token> tokens) {
  if (tokens.size() < 2)
    fail("{} token{} given; a prediction needs at least two, one to predict from another",
         tokens.size(), tokens.size() == 1 ? "" : "s");
}

}  // namespace lapidary
