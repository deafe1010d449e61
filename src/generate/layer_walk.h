// A text's way through a model a layer at a time: all of its tokens pass one layer before any
// passes the next, so that a study can stop between two layers, keep what is there, and go on from
// it another way.
//
// The arithmetic is a session's, keys and values as they are cached included: the stream after the
// last layer has the bits that a session's tap sees there.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/tap.h"
#include "lapidary/token.h"

#include "gemma/kv_cache.h"

namespace lapidary {

class LayerWalk {
 public:
  // Before the first layer: the stream is the scaled embedding. Throws Error{kInput} for ids that
  // are not in the vocabulary and for more tokens than the model was made for.
  LayerWalk(std::shared_ptr<const Engine> engine, std::span<const Token> tokens);

  int64_t tokens() const { return tokens_; }
  // The residual stream, f32 [tokens, hidden_size].
  std::span<const float> stream() const { return stream_; }
  void set_stream(std::span<const float> stream);

  // Takes the stream through a layer. `tap` sees that layer's points, and may write there.
  void run(int layer, const Tap& tap = {}, const Watch& watch = {});
  // The same for walks that go side by side: begin(), then run_chunk() until it is false, which
  // says that there was none left. Chunks are as long as the engine's.
  void begin(int layer);
  bool run_chunk(const Tap& tap = {});

 private:
  std::shared_ptr<const Engine> engine_;
  int64_t tokens_;
  std::vector<float> stream_;
  int layer_ = 0;
  std::optional<KvCache> cache_;  // of layer_ alone
};

}  // namespace lapidary
