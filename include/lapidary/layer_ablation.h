// room: study
// What a text's loss is without a layer, and without a head. docs/study.md defines every figure.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"

namespace lapidary {

enum class Ablate { kLayers, kHeads, kAll };

// Without what a layer adds to the residual stream, or without what one head of it does.
struct Ablation {
  int layer = 0;
  int head = -1;    // -1: all of the layer, its attention and its MLP
  double nll = 0;   // mean of -ln p(token | those before), nats
  double top1 = 0;  // share of the predictions whose likeliest token stays
};

struct AblationStudy {
  int64_t predicted = 0;  // tokens, all but the first
  double nll = 0;         // of the whole model
  std::vector<Ablation> layers = {};
  std::vector<Ablation> heads = {};  // head by head, layer by layer
  double seconds = 0;
};

// What comes before the layer is computed once for all that is done there, and only what follows is
// run again. On average that is half of the layers, and the head of the model, for each layer or
// head that is left out. Holds three residual streams of the text. Throws Error{kInput} for a text
// of fewer than two tokens or more than the model was made for, and for logits that are not finite.
AblationStudy ablate(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                     Ablate what, const Watch& watch = {});

}  // namespace lapidary
