// A Gemma model in memory: its configuration, its weights as they are on disk, and the state of a
// forward pass. Start here, then layer.cc.
//
// Letters: T tokens in the batch, D hidden_size, H heads, KV key/value heads, d head_dim,
// F intermediate_size, V vocab_size.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/config.h"

#include "gemma/kv_cache.h"
#include "tensor/ops.h"

namespace lapidary {

// Norm weights are few and are kept as f32 with Gemma's "1 +" added; matrices stay in the file.
struct LayerWeights {
  std::vector<float> input_layernorm;             // [D]
  Linear q_proj;                                  // [H * d, D]
  Linear k_proj;                                  // [KV * d, D]
  Linear v_proj;                                  // [KV * d, D]
  Linear o_proj;                                  // [D, H * d]
  std::vector<float> q_norm;                      // [d], Gemma 3
  std::vector<float> k_norm;                      // [d], Gemma 3
  std::vector<float> post_attention_layernorm;    // [D]; in Gemma 1 the norm before the MLP
  std::vector<float> pre_feedforward_layernorm;   // [D], Gemma 2 and 3
  Linear gate_proj;                               // [F, D]
  Linear up_proj;                                 // [F, D]
  Linear down_proj;                               // [D, F]
  std::vector<float> post_feedforward_layernorm;  // [D], Gemma 2 and 3
};

struct Weights {
  Linear embed_tokens;  // [V, D]
  std::vector<LayerWeights> layers;
  std::vector<float> norm;  // [D]
  Linear lm_head;           // [V, D]; the embedding itself where the two are tied
};

// The one list of a model's tensors: fn(name, field, rows, cols) for each, with cols = 0 for the
// norms, which are vectors of `rows`. Loading, synthesising and describing a model all visit it.
// `weights.layers` must have the config's length.
template <class WeightsType, class Fn>
void visit_tensors(const Config& c, WeightsType& weights, Fn&& fn) {
  const int64_t d = c.hidden_size, f = c.intermediate_size;
  fn("model.embed_tokens.weight", weights.embed_tokens, int64_t{c.vocab_size}, d);
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    auto& w = weights.layers[i];
    const auto visit = [&](const char* name, auto& field, int64_t rows, int64_t cols) {
      fn("model.layers." + std::to_string(i) + "." + name + ".weight", field, rows, cols);
    };
    visit("input_layernorm", w.input_layernorm, d, 0);
    visit("self_attn.q_proj", w.q_proj, c.q_dim(), d);
    visit("self_attn.k_proj", w.k_proj, c.kv_dim(), d);
    visit("self_attn.v_proj", w.v_proj, c.kv_dim(), d);
    visit("self_attn.o_proj", w.o_proj, d, c.q_dim());
    if (c.qk_norm()) {
      visit("self_attn.q_norm", w.q_norm, c.head_dim, 0);
      visit("self_attn.k_norm", w.k_norm, c.head_dim, 0);
    }
    visit("post_attention_layernorm", w.post_attention_layernorm, d, 0);
    if (c.post_norms()) visit("pre_feedforward_layernorm", w.pre_feedforward_layernorm, d, 0);
    visit("mlp.gate_proj", w.gate_proj, f, d);
    visit("mlp.up_proj", w.up_proj, f, d);
    visit("mlp.down_proj", w.down_proj, d, f);
    if (c.post_norms()) visit("post_feedforward_layernorm", w.post_feedforward_layernorm, d, 0);
  }
  fn("model.norm.weight", weights.norm, d, int64_t{0});
}

// Consecutive rows of a batch that belong to one timeline: tokens at cache->length(), ... Without
// a cache they are a whole timeline, which nothing will continue: a document to train on.
struct Segment {
  KvCache* cache;
  int64_t rows;
  const CacheShare* share = nullptr;  // of a cache that holds several timelines: this one's part
  // With a cache: of the rows, the last so many are a block whose tokens are not decided yet (arXiv
  // 2509.04185). They see each other, whatever their order, and leave nothing in the cache.
  int64_t undecided = 0;
  // Without a cache: the rows are a document and its noisy copy, half of them each, in blocks of so
  // many tokens (Sight, seen_keys.h). 0: they are a document.
  int64_t set_block = 0;

  // The position of the first row in its timeline.
  int64_t start() const {
    return share != nullptr ? share->length() : cache != nullptr ? cache->length() : 0;
  }
  // Where in the timeline what a row sees ends: with itself, or with the block that it is in.
  int64_t seen_end(int64_t row) const { return start() + (row < kept() ? row + 1 : rows); }
  int64_t kept() const { return rows - undecided; }
  // Of which rows have positions that follow each other.
  int64_t length() const { return set_block > 0 ? rows / 2 : rows; }
};

// Sees activations on their way (lapidary/tap.h): called with the block, or -1, the name of a point
// in it, and what is there, one row per token of the batch; may write there, unless there is a
// tape.
using Observer = std::function<void(int layer, std::string_view point, Matrix values)>;

// What a forward pass writes. Sized once for the largest batch; begin() takes the part it needs.
class State {
 public:
  State(const Config& config, int64_t max_rows);
  static int64_t bytes(const Config& config, int64_t max_rows);

  void begin(int64_t rows);
  // begin() for the rows of a batch, and their positions and rotary angles.
  void place(Executor& ex, std::span<const Segment> batch);
  int64_t max_rows() const { return max_rows_; }
  // All that the matrices lie in.
  std::span<float> memory() { return memory_; }

  Matrix x;     // [T, D] the residual stream
  Matrix h;     // [T, D] the input, then the output, of attention and of the MLP
  Matrix q;     // [T, H * d]
  Matrix k;     // [T, KV * d]
  Matrix v;     // [T, KV * d]
  Matrix attn;  // [T, H * d] weighted sums of values
  Matrix gate;  // [T, F]
  Matrix up;    // [T, F]
  Rotary rotary_full;
  Rotary rotary_sliding;
  std::vector<int64_t> positions;  // [T]
  AlignedVector<float> partials;   // attention in pieces (attention.cc); grows with the timeline

  // Where set, the layer page and forward() show it every point of tap_points().
  Observer observer;
  void observe(int layer, const char* point, Matrix values) const {
    if (observer) observer(layer, point, values);
  }

 private:
  int64_t max_rows_;
  Config config_;
  AlignedVector<float> memory_;
};

// One transformer layer on every row of the batch (layer.cc).
void layer_forward(Executor& ex, const Config& config, const LayerWeights& w, int layer,
                   std::span<const Segment> batch, State& s);

// Softmax attention of s.q over each row's own timeline into s.attn, after storing s.k and s.v
// there (attention.cc).
void attend(Executor& ex, const Config& config, int layer, std::span<const Segment> batch,
            State& s);

// The same where some segments share a cache, row by row; s.k and s.v are stored
// (attend_shared.cc).
void attend_shared(Executor& ex, const Config& config, int layer, std::span<const Segment> batch,
                   State& s);

// The same for segments without a cache, over s.k and s.v themselves, and backwards
// (attend_within.cc). Of a segment with set blocks no more scores are made than for twice a
// document, and those of the blocks.
void attend_within(Executor& ex, const Config& config, int layer, std::span<const Segment> batch,
                   State& s);

// Embeds the tokens (the rows of all segments, one after another), runs every layer, advances the
// caches and leaves the final norm's output in s.h (forward.cc). `embed_scale` is sqrt(D).
void forward(Executor& ex, const Config& config, const Weights& weights, float embed_scale,
             std::span<const Segment> batch, std::span<const Token> tokens, State& s);

// logits[t, V] of rows of s.h.
void head(Executor& ex, const Config& config, const Weights& weights, Matrix h, Matrix logits);

}  // namespace lapidary
