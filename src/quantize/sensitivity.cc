#include "quantize/sensitivity.h"

#include <algorithm>

#include "generate/divergence.h"

namespace lapidary {

namespace {

Windows start_of(const Windows& windows, int64_t tokens) {
  Windows start;
  for (const auto& window : windows) {
    if (tokens <= 0) break;
    start.emplace_back(window.begin(), window.begin() + std::min(tokens, std::ssize(window)));
    tokens -= std::ssize(start.back());
  }
  return start;
}

}  // namespace

Sensitivity::Sensitivity(const Model& model, const Windows& windows, Executor& executor,
                         const Watch& watch)
    : model_(model),
      windows_(start_of(windows, kTokens)),
      executor_(executor),
      watch_(watch),
      stream_(model.config, model.weights, windows_, executor) {
  const AlignedVector<float> embedded = stream_.values();
  for (int layer = 0; layer < model.config.num_hidden_layers; ++layer) {
    watch_.throw_if_stopped();
    stream_.run(layer, model.weights.layers[static_cast<size_t>(layer)]);
  }
  expected_ = stream_.logits();
  stream_.set_values(embedded);
}

int64_t Sensitivity::bytes(const Config& config) {
  return 2 * kTokens * config.vocab_size * int64_t{sizeof(float)} +
         2 * ResidualStream::bytes(config, kTokens);
}

double Sensitivity::of_layer(int layer, const LayerWeights& changed) {
  for (; at_ < layer; ++at_) stream_.run(at_, model_.weights.layers[static_cast<size_t>(at_)]);
  const AlignedVector<float> before = stream_.values();
  stream_.run(layer, changed);
  const double kld = finish(stream_, layer + 1);
  stream_.set_values(before);
  return kld;
}

double Sensitivity::of_weights(const Weights& changed) {
  ResidualStream stream(model_.config, changed, windows_, executor_);
  return finish(stream, 0);
}

// The layers from `next_layer` on, and the divergence of what comes out.
double Sensitivity::finish(ResidualStream& stream, int next_layer) {
  for (int layer = next_layer; layer < model_.config.num_hidden_layers; ++layer) {
    watch_.throw_if_stopped();
    stream.run(layer, model_.weights.layers[static_cast<size_t>(layer)]);
  }
  const std::vector<float> logits = stream.logits();
  const auto vocabulary = static_cast<size_t>(model_.config.vocab_size);
  double sum = 0;
  for (size_t first = 0; first < logits.size(); first += vocabulary)
    sum += compare_rows(std::span(expected_).subspan(first, vocabulary),
                        std::span(logits).subspan(first, vocabulary), executor_.pool())
               .kld;
  return sum / static_cast<double>(logits.size() / vocabulary);
}

}  // namespace lapidary
