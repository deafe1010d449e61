// room: generate
// From logits to the next token.
#pragma once

#include <cstdint>
#include <map>
#include <span>

#include "lapidary/token.h"

namespace lapidary {

// Applied in this order, each to what the one before left:
//   1. logit_bias is added
//   2. repetition_penalty divides positive logits, and multiplies negative ones, of every token
//      that occurs in the window of the last penalty_window tokens
//   3. frequency_penalty times its count in the window, and presence_penalty once, are subtracted
//      from the logit of each such token
//   4. temperature divides the logits; 0 takes the largest logit (the lowest id among equals) now
//   5. top_k keeps the k largest
//   6. top_p keeps the most probable tokens until their sum reaches p
//   7. min_p drops tokens less probable than min_p times the most probable one
//   8. a token is drawn from what is left, by a number that depends on the seed and the position
//   only
struct SamplerOptions {
  double temperature = 1.0;
  int top_k = 64;       // 0: all
  double top_p = 0.95;  // 1: all
  double min_p = 0.0;   // 0: all
  double repetition_penalty = 1.0;
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
  int penalty_window = 64;  // tokens; -1: the whole timeline
  std::map<Token, float> logit_bias = {};
  uint64_t seed = 0;
};

// Throws Error{kUsage} naming the option, its value and what it may be.
void check_sampler_options(const SamplerOptions& options, int vocab_size);

// The next token after `timeline` (prompt and answer so far). logits: f32 [vocab]; ids from
// `usable_vocab` on (rows that pad the table and have no token) are never chosen. A function of its
// arguments alone: the draw is made by (seed, position), so a restored, forked or batched session
// goes on the same way.
Token sample(const SamplerOptions& options, std::span<const float> logits,
             std::span<const Token> timeline, int usable_vocab);

// A token for a place, and how sure the distribution is that it was taken from: that of step 8, and
// at temperature 0 the softmax of the logits that step 4 finds.
struct Prediction {
  Token token = 0;
  double entropy = 0;     // nats
  double confidence = 0;  // the largest probability
  double margin = 0;      // of it over the second largest
};
// sample() for the place `position`, before which all of `timeline` need not be known: what is
// known of it, for the penalties. Costs a softmax of the logits beside sample().
Prediction predict(const SamplerOptions& options, std::span<const float> logits,
                   std::span<const Token> timeline, int64_t position, int usable_vocab);

}  // namespace lapidary
