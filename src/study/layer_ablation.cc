#include "lapidary/layer_ablation.h"

#include <algorithm>

#include "base/clock.h"
#include "generate/layer_walk.h"
#include "study/text_loss.h"

namespace lapidary {

namespace {

// A change of attention: what one head hands on is zero.
Tap without_head(const Config& config, int head) {
  const int64_t d = config.head_dim, first = head * d;
  return [=](const Activation& a) {
    if (a.point != "attn.hook_z") return;
    for (int64_t i = 0; i < a.rows; ++i) std::fill_n(a.row(i) + first, d, 0.0f);
  };
}

class Ablations {
 public:
  Ablations(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens, Ablate what,
            const Watch& watch)
      : engine_(*engine),
        config_(engine->config()),
        tokens_(tokens),
        what_(what),
        watch_(watch),
        walk_(engine, tokens) {}

  AblationStudy run() {
    const std::vector<float> embedding(walk_.stream().begin(), walk_.stream().end());
    AblationStudy study{.predicted = std::ssize(tokens_) - 1};
    whole_ = loss_after(0);
    study.nll = whole_.mean();
    walk_.set_stream(embedding);
    for (int layer = 0; layer < layers(); ++layer) leave_out(layer, study);
    return study;
  }

 private:
  int layers() const { return config_.num_hidden_layers; }

  // With the stream at the layer's door, and leaves it at the next one's.
  void leave_out(int layer, AblationStudy& study) {
    const std::vector<float> door(walk_.stream().begin(), walk_.stream().end());
    if (what_ != Ablate::kHeads) {
      study.layers.push_back(compared(layer, -1, loss_after(layer + 1)));
      walk_.set_stream(door);
    }
    for (int head = 0; what_ != Ablate::kLayers && head < config_.num_attention_heads; ++head) {
      pass(layer, without_head(config_, head));
      study.heads.push_back(compared(layer, head, loss_after(layer + 1)));
      walk_.set_stream(door);
    }
    if (layer + 1 < layers()) pass(layer);
  }

  void pass(int layer, const Tap& tap = {}) {
    walk_.run(layer, tap, watch_);
    watch_.report(++done_, total());
  }
  TextLoss loss_after(int first) {
    for (int layer = first; layer < layers(); ++layer) pass(layer);
    watch_.throw_if_stopped();
    TextLoss loss = text_loss(engine_, walk_.stream(), tokens_);
    done_ += head_work();
    watch_.report(done_, total());
    return loss;
  }
  Ablation compared(int layer, int head, const TextLoss& loss) const {
    return {layer, head, loss.mean(), loss.agreement(whole_)};
  }

  // In passes of one layer: what the head costs, by its weights, and everything.
  int64_t head_work() const {
    const int64_t d = config_.hidden_size;
    const int64_t layer =
        d * (2 * config_.q_dim() + 2 * config_.kv_dim() + 3 * int64_t{config_.intermediate_size});
    return (config_.vocab_size * d + layer - 1) / layer;
  }
  int64_t total() const {
    const int64_t n = layers(), head = head_work(), below = n * (n - 1) / 2;
    int64_t work = n + head + n - 1;
    if (what_ != Ablate::kHeads) work += below + n * head;
    if (what_ != Ablate::kLayers) work += config_.num_attention_heads * (below + n + n * head);
    return work;
  }

  const Engine& engine_;
  const Config& config_;
  std::span<const Token> tokens_;
  Ablate what_;
  const Watch& watch_;
  LayerWalk walk_;
  TextLoss whole_;  // of the model as it is
  int64_t done_ = 0;
};

}  // namespace

AblationStudy ablate(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                     Ablate what, const Watch& watch) {
  check_predicts(tokens);
  const Stopwatch clock;
  AblationStudy study = Ablations(engine, tokens, what, watch).run();
  study.seconds = clock.seconds();
  return study;
}

}  // namespace lapidary
