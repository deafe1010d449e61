#include <algorithm>

#include "lapidary/error.h"

#include "gemma/model.h"

namespace lapidary {

namespace {

// Floats per row of a State.
int64_t row_floats(const Config& c) {
  return 2 * int64_t{c.hidden_size} + 2 * c.q_dim() + 2 * c.kv_dim() +
         2 * int64_t{c.intermediate_size};
}

}  // namespace

State::State(const Config& config, int64_t max_rows)
    : rotary_full(config.head_dim, config.rope_full.theta, config.rope_full.factor),
      rotary_sliding(config.head_dim, config.rope_sliding.theta, config.rope_sliding.factor),
      max_rows_(max_rows),
      config_(config),
      memory_(static_cast<size_t>(max_rows * row_floats(config))) {
  begin(0);
}

int64_t State::bytes(const Config& config, int64_t max_rows) {
  return max_rows * row_floats(config) * int64_t{sizeof(float)};
}

void State::begin(int64_t rows) {
  LAPIDARY_CHECK(rows <= max_rows_, "a batch larger than the state");
  float* next = memory_.data();
  const auto take = [&](int64_t cols) {
    const Matrix m{next, rows, cols};
    next += m.size();
    return m;
  };
  const Config& c = config_;
  x = take(c.hidden_size);
  h = take(c.hidden_size);
  q = take(c.q_dim());
  k = take(c.kv_dim());
  v = take(c.kv_dim());
  attn = take(c.q_dim());
  gate = take(c.intermediate_size);
  up = take(c.intermediate_size);
}

void State::place(Executor& ex, std::span<const Segment> batch) {
  positions.clear();
  for (const Segment& seg : batch)
    for (int64_t i = 0; i < seg.rows; ++i) positions.push_back(seg.start() + i % seg.length());
  begin(std::ssize(positions));
  rotary_full.set_positions(ex, positions);
  rotary_sliding.set_positions(ex, positions);
}

void forward(Executor& ex, const Config& config, const Weights& weights, float embed_scale,
             std::span<const Segment> batch, std::span<const Token> tokens, State& s) {
  s.place(ex, batch);
  LAPIDARY_CHECK(s.positions.size() == tokens.size(), "segments cover the tokens");

  embed(ex, tokens, weights.embed_tokens, embed_scale, s.x);
  s.observe(-1, "hook_embed", s.x);
  for (int layer = 0; layer < config.num_hidden_layers; ++layer)
    layer_forward(ex, config, weights.layers[static_cast<size_t>(layer)], layer, batch, s);
  for (const Segment& seg : batch)
    if (seg.cache != nullptr) seg.cache->advance(seg.kept());
  rms_norm(ex, s.x, weights.norm, config.rms_norm_eps, s.h);
  s.observe(-1, "ln_final.hook_out", s.h);
}

void head(Executor& ex, const Config& config, const Weights& weights, Matrix h, Matrix logits) {
  matmul(ex, h, weights.lm_head, logits);
  if (config.final_logit_softcapping > 0) softcap(ex, logits, config.final_logit_softcapping);
}

}  // namespace lapidary
