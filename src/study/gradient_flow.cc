// What a text's loss says of each matrix: one pass back.
#include <algorithm>
#include <cmath>
#include <deque>
#include <map>

#include "base/clock.h"
#include "base/fail.h"
#include "base/system.h"
#include "gemma/backprop.h"
#include "generate/engine_impl.h"
#include "study/matrices.h"
#include "study/text_loss.h"

namespace lapidary {

namespace {

double norm_of(std::span<const float> values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  return std::sqrt(squares);
}

double stored_norm(const Linear& w) {
  std::vector<float> row(static_cast<size_t>(w.cols));
  double squares = 0;
  for (int64_t i = 0; i < w.rows; ++i) {
    best_kernels().dequantize_row(w, i, row.data());
    const double norm = norm_of(row);
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

// As many layers' records at a time as there is memory for, 0 being all.
int checkpoints_that_fit(const Config& config, int64_t rows, int64_t beside) {
  const auto bytes = [&](int layers) {
    return beside + backprop_bytes(config, rows, layers, false, [](const std::string& name) {
             return Trained{.values = name.ends_with("_proj.weight")};
           });
  };
  const int64_t available = available_memory_bytes();
  if (bytes(0) <= available) return 0;
  for (int layers = config.num_hidden_layers - 1; layers > 0; --layers)
    if (bytes(layers) <= available) return layers;
  throw Error(ErrorKind::kResource,
              fmt::format("gradients of {} tokens need {} MiB, {} of memory are available", rows,
                          bytes(1) >> 20, available >> 20),
              "use a shorter text");
}

}  // namespace

GradientFlow gradient_flow(const Engine& engine, std::span<const Token> tokens,
                           const Watch& watch) {
  check_predicts(tokens);
  check_ids(tokens, engine.config().vocab_size);
  const Stopwatch clock;
  const Model& model = inside(engine).model;
  const std::vector<LayerMatrix> matrices = matrices_of(engine);
  // Layers have the same shapes, and their gradients are complete one layer after another: those of
  // one layer have room for all.
  std::map<std::string, AlignedVector<float>> rooms;
  int64_t room_bytes = 0;
  for (const LayerMatrix& m : matrices) {
    if (m.id.layer > 0) break;
    AlignedVector<float>& room = rooms[m.id.name];
    room.resize(static_cast<size_t>(m.weights->rows * m.weights->cols));
    room_bytes += std::ssize(room) * int64_t{sizeof(float)};
  }

  GradientFlow flow;
  const int64_t rows = std::ssize(tokens), layers = engine.config().num_hidden_layers;
  flow.checkpoint_layers = checkpoints_that_fit(engine.config(), rows, room_bytes);
  Executor ex(best_kernels(), engine.threads());
  Backprop pass(ex, engine.config(), model.weights, rows, flow.checkpoint_layers);
  // The tape asks for a matrix by where it begins; how long it is in its stored form is all one.
  for (const LayerMatrix& m : matrices)
    pass.tape().track(values_of(*m.weights), 1, rooms[m.id.name].data());
  flow.matrices.resize(matrices.size());
  const auto take = [&](int layer) {
    for (size_t i = 0; i < matrices.size(); ++i) {
      if (matrices[i].id.layer != layer) continue;
      AlignedVector<float>& gradient = rooms[matrices[i].id.name];
      flow.matrices[i] = {.id = matrices[i].id, .norm = norm_of(gradient)};
      std::ranges::fill(gradient, 0.0f);
    }
    watch.report(layers - layer, layers);
  };
  std::vector<Token> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(kNoTarget);
  const Loss loss =
      pass.run({tokens, targets, {&rows, 1}}, 1 / static_cast<float>(rows - 1), watch, take);
  flow.nll = loss.nats / static_cast<double>(loss.tokens);
  if (!std::isfinite(flow.nll)) fail("logits are not finite");
  ex.pool().parallel_for(std::ssize(matrices), [&](int64_t first, int64_t last, int) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
      flow.matrices[i].relative = flow.matrices[i].norm / stored_norm(*matrices[i].weights);
  });
  model.release_pages();
  flow.seconds = clock.seconds();
  return flow;
}

}  // namespace lapidary
