// Loss and gradients of a model on a batch of documents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lapidary/progress.h"

#include "gemma/model.h"

namespace lapidary {

constexpr Token kNoTarget = -1;

// A batch of whole documents, one after another; none sees another.
struct Documents {
  std::span<const Token> tokens;     // [T]
  std::span<const Token> targets;    // [T]: what should follow each token, or kNoTarget
  std::span<const int64_t> lengths;  // of the documents; they sum up to T
};

struct Loss {
  double nats = 0;     // sum over the targets of -log p
  int64_t tokens = 0;  // targets
};

// Sum of -log p(target) over the rows of h, the final norm's output. With a tape on the executor,
// adds `scale` times the gradient to that of h and, where it is tracked, of the head. Logits are
// made for some rows at a time, in at most 256 MiB.
Loss cross_entropy(Executor& ex, const Config& config, const Linear& lm_head, Matrix h,
                   std::span<const Token> targets, float scale);

// Memory for batches of up to `max_rows` tokens. Which values have gradients, and where, is what
// tape() tracks.
class Backprop {
 public:
  // `checkpoint_layers`: 0 keeps what every layer leaves for its way back. Otherwise only the input
  // of every so many layers is kept, and their forward pass is done again: less memory, up to a
  // third more time, the same bits. Config, weights and executor must outlive this.
  Backprop(Executor& ex, const Config& config, const Weights& weights, float embed_scale,
           int64_t max_rows, int checkpoint_layers);

  Tape& tape() { return tape_; }

  // Adds the gradient of scale * loss.nats to whatever is tracked. Throws Error{kInterrupted}
  // between layers.
  Loss run(const Documents& batch, float scale, const Watch& watch = {});
  // The loss alone, by the same arithmetic.
  Loss evaluate(const Documents& batch, const Watch& watch = {});

 private:
  void begin(const Documents& batch);
  void run_layers(int first, int last, const Watch& watch);
  int layers() const { return config_.num_hidden_layers; }

  Executor& ex_;
  const Config& config_;
  const Weights& weights_;
  float embed_scale_;
  int group_;  // layers between checkpoints
  State state_, gradients_;
  Tape tape_;
  std::vector<Segment> segments_;
  std::vector<AlignedVector<float>> checkpoints_;  // [groups - 1] of [T, D]
};

}  // namespace lapidary
