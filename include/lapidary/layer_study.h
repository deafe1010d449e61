// room: study
// What the layers of a model do to a text. docs/study.md defines every figure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

// What the logits would be if the model ended here: the final norm and the head on the residual
// stream. Means over some positions of the text.
struct LensFigures {
  double entropy = 0;      // of the prediction, nats
  double kl_to_final = 0;  // sum of p ln(p / q), p the model's own prediction and q this one, nats
  double target_nll = 0;   // -ln q(the token that follows)
  double target_rank = 0;  // median of how many tokens q holds likelier than the one that follows
  double top1 = 0;         // share of positions where the likeliest token is the model's own
};

// Means over the tokens, unless they say otherwise. Of hook_resid_post but where another is named.
struct LayerFigures {
  int layer = 0;
  bool sliding = false;
  double norm = 0;            // length of the residual stream
  double attention_norm = 0;  // length of hook_attn_out
  double mlp_norm = 0;        // length of hook_mlp_out
  // Root mean square of each feature over the median feature's, [hidden_size]; the largest of them.
  std::vector<double> features = {};
  int outlier = 0;
  double outlier_ratio = 0;
  double kurtosis = 0;   // of a token's features: 3 if they were normal
  double gate_open = 0;  // share of mlp.hook_pre above 0
  // (sum of |a|)^2 / (n sum of a^2) over the n neurons of mlp.hook_post: 1 if all are as active, 1
  // / n if one is.
  double neurons = 0;
  double effective_rank = 0;  // e to the entropy of the shares of variance along principal axes
  LensFigures lens = {};
  // What is added to the logit of the token that follows, over the mean of all tokens, by what
  // attention and the MLP add to the stream; before a softcap, with the final norm's scale as it
  // is.
  double attention_logit = 0;
  double mlp_logit = 0;
};

struct LayerStudy {
  int64_t tokens = 0;
  int64_t sampled = 0;       // positions of effective_rank and similarity, evenly spread
  int64_t lens_sampled = 0;  // of the lens and the logits
  std::vector<LayerFigures> layers = {};
  double embedding_norm = 0;
  double embedding_logit = 0;  // as attention_logit, of hook_embed
  double target_logit = 0;     // logit of the token that follows less the mean of all: their sum
  // Centred kernel alignment (arXiv 1905.00414, linear) of the streams before the first layer and
  // after each: [layers + 1][layers + 1].
  std::vector<std::vector<double>> similarity = {};
  double seconds = 0;       // of reading the text and looking
  double look_seconds = 0;  // of them, looking
  double lens_seconds = 0;  // after that: of the lens
};

struct LayerOptions {
  int64_t context = 0;  // of the session; 0: what the model was made for
  int64_t sample = 512;
  int64_t lens_sample = 64;
};

// Throws Error{kInput} for a text of fewer than two tokens, and as Session::append.
LayerStudy study_layers(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                        const LayerOptions& options = {}, const Watch& watch = {});

}  // namespace lapidary
