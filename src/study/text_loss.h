// What a residual stream predicts of its text.
#pragma once

#include <span>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/token.h"

namespace lapidary {

struct TextLoss {
  std::vector<double> nll;  // [tokens - 1] -ln p(token | those before), nats
  std::vector<Token> top;   // [tokens - 1] the likeliest

  double mean() const;
  // Share of the predictions whose likeliest token is that of `other`.
  double agreement(const TextLoss& other) const;
};

// Of the stream after the last layer, [tokens, hidden_size]. Throws Error{kInput} for logits that
// are not finite.
TextLoss text_loss(const Engine& engine, std::span<const float> stream,
                   std::span<const Token> tokens);

// Throws Error{kInput} for a text that leaves nothing to predict.
void check_predicts(std::span<const Token> tokens);

}  // namespace lapidary
