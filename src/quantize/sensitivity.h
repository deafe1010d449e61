// How far the answers of a model move when one of its matrices is another.
#pragma once

#include <memory>
#include <vector>

#include "lapidary/progress.h"

#include "gemma/load.h"
#include "quantize/calibration.h"

namespace lapidary {

// Goes through the layers in order. Holds logits of kTokens tokens twice.
class Sensitivity {
 public:
  static constexpr int64_t kTokens = 128;

  // The text is the start of `windows`.
  Sensitivity(const Model& model, const Windows& windows, Executor& executor, const Watch& watch);
  static int64_t bytes(const Config& config);

  // Mean KL divergence from the model, in nats per token, of one whose layer is `changed`. Layers
  // must come in ascending order.
  double of_layer(int layer, const LayerWeights& changed);
  // Of one with another embedding, or another head where the two are not tied.
  double of_weights(const Weights& changed);

 private:
  double finish(ResidualStream& stream, int next_layer);

  const Model& model_;
  Windows windows_;
  Executor& executor_;
  const Watch& watch_;
  ResidualStream stream_;  // of the model itself, before layer at_
  int at_ = 0;
  std::vector<float> expected_;  // [T, V]
};

}  // namespace lapidary
