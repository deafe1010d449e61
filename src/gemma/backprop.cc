#include "gemma/backprop.h"

#include <algorithm>
#include <numeric>

#include "lapidary/error.h"

namespace lapidary {

namespace {

// Puts the tape on the executor, and has it multiply such operands, for as long as it lives.
class Recording {
 public:
  Recording(Executor& ex, Tape& tape, Operands operands) : ex_(ex), before_(ex.operands) {
    ex.tape = &tape;
    ex.operands = operands;
  }
  ~Recording() {
    ex_.tape->clear();
    ex_.tape = nullptr;
    ex_.operands = before_;
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  Executor& ex_;
  Operands before_;
};

}  // namespace

Backprop::Backprop(Executor& ex, const Config& config, const Weights& weights, int64_t max_rows,
                   int checkpoint_layers, Operands operands)
    : ex_(ex),
      operands_(operands),
      config_(config),
      weights_(weights),
      group_(checkpoint_layers > 0 ? checkpoint_layers : config.num_hidden_layers),
      state_(config, max_rows),
      gradients_(config, max_rows) {
  tape_.track(state_.memory().data(), std::ssize(state_.memory()), gradients_.memory().data());
  const auto groups = static_cast<size_t>((layers() + group_ - 1) / group_);
  checkpoints_.resize(groups - 1);
}

void Backprop::begin(const Documents& batch) {
  LAPIDARY_CHECK(std::ssize(batch.tokens) ==
                         std::accumulate(batch.lengths.begin(), batch.lengths.end(), int64_t{0}) &&
                     batch.targets.size() == batch.tokens.size(),
                 "documents cover the batch");
  const bool twice = !batch.blocks.empty();
  LAPIDARY_CHECK(batch.blocks.size() == (twice ? batch.lengths.size() : 0) &&
                     batch.masked.size() == (twice ? batch.tokens.size() : 0),
                 "blocks of each document, and masked tokens in them");
  segments_.clear();
  for (size_t i = 0; i < batch.lengths.size(); ++i)
    segments_.push_back(
        {.cache = nullptr, .rows = batch.lengths[i], .set_block = twice ? batch.blocks[i] : 0});
  state_.place(ex_, segments_);
  gradients_.begin(std::ssize(batch.tokens));
}

void Backprop::run_layers(int first, int last, const Watch& watch,
                          const std::function<void(int layer)>& after) {
  for (int layer = first; layer < last; ++layer) {
    watch.throw_if_stopped();
    if (after) tape_.record([&after, layer] { after(layer); });
    if (on_layer_) {
      on_layer_(layer, false);
      tape_.record([this, layer] { on_layer_(layer, true); });
    }
    layer_forward(ex_, config_, weights_.layers[static_cast<size_t>(layer)], layer, segments_,
                  state_);
  }
}

// The loss of the last layer's output.
Loss Backprop::head(const Documents& batch, float scale, std::span<uint8_t> likeliest) {
  Loss loss =
      cross_entropy(ex_, config_, weights_.lm_head, state_.h, batch.targets, scale, likeliest);
  if (batch.masked.empty()) return loss;
  const Loss masked = cross_entropy(ex_, config_, weights_.lm_head, state_.h, batch.masked, scale);
  loss.masked_nats = masked.nats;
  loss.masked_tokens = masked.tokens;
  return loss;
}

Loss Backprop::run(const Documents& batch, float scale, const Watch& watch,
                   const std::function<void(int layer)>& after) {
  begin(batch);
  // What an interrupted run may have left behind.
  std::fill(gradients_.memory().begin(), gradients_.memory().end(), 0.0f);
  const Recording recording(ex_, tape_, operands_);
  const Dropout start = tape_.dropout();
  std::vector<uint64_t> keys;  // of the dropout, at each checkpoint

  embed(ex_, batch.tokens, weights_.embed_tokens, config_.embed_scale(), state_.x);
  for (size_t i = 0; i < checkpoints_.size(); ++i) {
    checkpoints_[i].assign(state_.x.data, state_.x.data + state_.x.size());
    keys.push_back(tape_.dropout().key);
    tape_.clear();
    run_layers(first_layer(i), first_layer(i + 1), watch);
  }
  if (!checkpoints_.empty()) tape_.clear();
  run_layers(first_layer(checkpoints_.size()), layers(), watch, after);
  rms_norm(ex_, state_.x, weights_.norm, config_.rms_norm_eps, state_.h);
  const Loss loss = head(batch, scale);
  watch.throw_if_stopped();
  if (on_layer_) on_layer_(layers(), true);
  tape_.backward();

  const Dropout end = tape_.dropout();
  for (size_t i = checkpoints_.size(); i-- > 0;) {
    std::copy(checkpoints_[i].begin(), checkpoints_[i].end(), state_.x.data);
    tape_.set_dropout(start.rate, keys[i]);
    run_layers(first_layer(i), first_layer(i + 1), watch, after);
    tape_.backward();
  }
  if (!checkpoints_.empty()) {
    embed(ex_, batch.tokens, weights_.embed_tokens, config_.embed_scale(), state_.x);
    tape_.backward();
  }
  tape_.set_dropout(end.rate, end.key);
  return loss;
}

Loss Backprop::evaluate(const Documents& batch, const Watch& watch, std::span<uint8_t> likeliest) {
  begin(batch);
  const Recording recording(ex_, tape_, operands_);
  const Dropout dropout = tape_.dropout();
  tape_.set_dropout(0, 0);
  embed(ex_, batch.tokens, weights_.embed_tokens, config_.embed_scale(), state_.x);
  for (int layer = 0; layer < layers(); ++layer) {
    run_layers(layer, layer + 1, watch);
    tape_.clear();
  }
  rms_norm(ex_, state_.x, weights_.norm, config_.rms_norm_eps, state_.h);
  ex_.tape = nullptr;
  const Loss loss = head(batch, 0, likeliest);
  ex_.tape = &tape_;
  tape_.set_dropout(dropout.rate, dropout.key);
  return loss;
}

}  // namespace lapidary
