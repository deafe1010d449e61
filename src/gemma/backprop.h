// Loss and gradients of a model on a batch of documents.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lapidary/progress.h"

#include "gemma/model.h"

namespace lapidary {

constexpr Token kNoTarget = -1;

// A batch of whole documents, one after another; none sees another.
struct Documents {
  std::span<const Token> tokens;     // [T]
  std::span<const Token> targets;    // [T]: what should follow each token, or kNoTarget
  std::span<const int64_t> lengths;  // of the documents, in rows; they sum up to T
  // With set blocks (arXiv 2509.04185) the rows of a document are its tokens and then a copy of
  // them, some of which are masked: the tokens of a block of each document's copy. Empty: without.
  std::span<const int64_t> blocks = {};
  // [T]: what a masked row itself stands for, or kNoTarget. Empty: without set blocks.
  std::span<const Token> masked = {};
};

struct Loss {
  double nats = 0;     // sum over the targets of -log p
  int64_t tokens = 0;  // targets
  // And the same over the masked tokens.
  double masked_nats = 0;
  int64_t masked_tokens = 0;
};

// Sum of -log p(target) over the rows of h, the final norm's output. With a tape on the executor,
// adds `scale` times the gradient to that of h and, where it is tracked, of the head. Logits are
// made for some rows at a time, in at most 256 MiB. `likeliest`: [T] becomes 1 where a row's target
// is the likeliest token, the first of equal ones, and 0 elsewhere; or empty.
Loss cross_entropy(Executor& ex, const Config& config, const Linear& lm_head, Matrix h,
                   std::span<const Token> targets, float scale, std::span<uint8_t> likeliest = {});

// What cross_entropy() needs with a tape, in bytes.
int64_t cross_entropy_bytes(const Config& config, int64_t rows);

// How the matrix of a name, "model.layers.0.mlp.up_proj.weight", is trained.
struct Trained {
  bool values = false;       // it has gradients
  int64_t adapter_rank = 0;  // so have an adapter's factors
  bool dora = false;         // and its lengths of the rows
};
using TrainedMatrices = std::function<Trained(const std::string& name)>;

// What the tape will hold at most, in bytes.
int64_t tape_bytes(const Config& config, int64_t rows, int checkpoint_layers, bool dropout,
                   const TrainedMatrices& trained);
// What a Backprop of these arguments, and its runs, will hold at most, in bytes, beside the
// executor's scratch.
int64_t backprop_bytes(const Config& config, int64_t max_rows, int checkpoint_layers, bool dropout,
                       const TrainedMatrices& trained);

// Memory for batches of up to `max_rows` tokens. Which values have gradients, and where, is what
// tape() tracks.
class Backprop {
 public:
  // `checkpoint_layers`: 0 keeps what every layer leaves for its way back. Otherwise that of so
  // many layers at a time, counted from the last: of the ones before, only the input of every so
  // many is kept, and their forward pass is done again. Less memory, up to a third more time, the
  // same bits. `operands`: of the products with weights and of those that make gradients;
  // attention's are of f32. Config, weights and executor must outlive this.
  Backprop(Executor& ex, const Config& config, const Weights& weights, int64_t max_rows,
           int checkpoint_layers, Operands operands = Operands::kFloat);

  Tape& tape() { return tape_; }

  // A place in run(): a layer that begins its forward pass or, `backward`, is done with its
  // backward pass; the layer after the last, `backward`, where that begins.
  using Passing = std::function<void(int layer, bool backward)>;
  void on_layer(Passing fn) { on_layer_ = std::move(fn); }

  // Adds the gradient of scale * (loss.nats + loss.masked_nats) to whatever is tracked. `after` is
  // called when the gradients of all that a layer has are complete, the last layer first. Throws
  // Error{kInterrupted} between layers.
  Loss run(const Documents& batch, float scale, const Watch& watch = {},
           const std::function<void(int layer)>& after = {});
  // The loss alone, by the same arithmetic. `likeliest` is cross_entropy()'s.
  Loss evaluate(const Documents& batch, const Watch& watch = {}, std::span<uint8_t> likeliest = {});

 private:
  void begin(const Documents& batch);
  Loss head(const Documents& batch, float scale, std::span<uint8_t> likeliest = {});
  void run_layers(int first, int last, const Watch& watch,
                  const std::function<void(int layer)>& after = {});
  int layers() const { return config_.num_hidden_layers; }
  // The first layer of a group: all are of group_ layers, but the first, which has what is left.
  int first_layer(size_t group) const {
    const auto after = static_cast<int>(checkpoints_.size() + 1 - group);
    return std::max(0, layers() - after * group_);
  }

  Executor& ex_;
  Operands operands_;
  const Config& config_;
  const Weights& weights_;
  int group_;  // layers whose records are kept at once
  State state_, gradients_;
  Tape tape_;
  std::vector<Segment> segments_;
  std::vector<AlignedVector<float>> checkpoints_;  // [groups - 1] of [T, D]
  Passing on_layer_;
};

}  // namespace lapidary
