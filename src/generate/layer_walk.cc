#include "generate/layer_walk.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "generate/engine_impl.h"

namespace lapidary {

namespace {

// Shows a tap the points of a chunk, for as long as it lives.
class Observing {
 public:
  Observing(State& state, const Tap& tap, int64_t position) : state_(state) {
    if (!tap) return;
    state.observer = [&tap, position](int layer, std::string_view point, Matrix values) {
      tap({.point = point,
           .layer = layer,
           .position = position,
           .rows = values.rows,
           .cols = values.cols,
           .values = values.data});
    };
  }
  ~Observing() { state_.observer = {}; }
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;

 private:
  State& state_;
};

}  // namespace

LayerWalk::LayerWalk(std::shared_ptr<const Engine> engine, std::span<const Token> tokens)
    : engine_(std::move(engine)), tokens_(std::ssize(tokens)) {
  const auto& impl = inside(*engine_);
  const Config& config = engine_->config();
  check_generates(config, engine_->folder());
  if (tokens_ > config.max_position_embeddings)
    fail("a text of {} tokens, the model was made for {}", tokens_, config.max_position_embeddings);
  check_ids(tokens, config.vocab_size);
  stream_.resize(tokens.size() * static_cast<size_t>(config.hidden_size));
  const std::lock_guard lock(impl.step_mutex);
  impl.executor->pool().use(impl.threads_batch);
  embed(*impl.executor, tokens, impl.model.weights.embed_tokens, impl.embed_scale,
        {stream_.data(), tokens_, config.hidden_size});
}

void LayerWalk::set_stream(std::span<const float> stream) {
  LAPIDARY_CHECK(stream.size() == stream_.size(), "a stream of the same text");
  std::ranges::copy(stream, stream_.begin());
}

void LayerWalk::run(int layer, const Tap& tap, const Watch& watch) {
  begin(layer);
  do watch.throw_if_stopped();
  while (run_chunk(tap));
}

void LayerWalk::begin(int layer) {
  const auto& impl = inside(*engine_);
  layer_ = layer;
  cache_.emplace(engine_->config(), impl.kv_type, impl.kv_pool);
}

bool LayerWalk::run_chunk(const Tap& tap) {
  const int64_t position = cache_->length();
  if (position == tokens_) return false;
  const auto& impl = inside(*engine_);
  const std::lock_guard lock(impl.step_mutex);
  State& state = *impl.state;
  const Segment segment{&*cache_, std::min(state.max_rows(), tokens_ - position)};
  impl.executor->pool().use(impl.threads_batch);
  state.place(*impl.executor, {&segment, 1});
  const Observing observing(state, tap, position);
  float* const rows = stream_.data() + position * state.x.cols;
  std::copy_n(rows, state.x.size(), state.x.data);
  const auto& weights = impl.model.weights.layers[static_cast<size_t>(layer_)];
  layer_forward(*impl.executor, engine_->config(), weights, layer_, {&segment, 1}, state);
  std::copy_n(state.x.data, state.x.size(), rows);
  cache_->advance(segment.rows);
  return true;
}

}  // namespace lapidary
