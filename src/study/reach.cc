// What the loss becomes when layers see as far as those of the other kind.
#include <algorithm>
#include <cmath>

#include "lapidary/attention_study.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "base/statistics.h"
#include "generate/logit_rows.h"
#include "study/pieces.h"

namespace lapidary {

namespace {

std::vector<LayerType> changed_types(const Config& config, const ReachChange& change) {
  std::vector<LayerType> types = config.layer_types;
  const LayerType to = change.to_local ? LayerType::kSliding : LayerType::kFull;
  if (change.layer >= 0)
    types[static_cast<size_t>(change.layer)] = to;
  else
    std::ranges::fill(types, to);
  return types;
}

// Each layer by itself, and each kind where it has several.
std::vector<ReachChange> all_changes(const Config& config) {
  std::vector<ReachChange> changes;
  for (const bool to_local : {true, false}) {
    int64_t count = 0;
    for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
      if (config.is_sliding(layer) == to_local) continue;
      changes.push_back({.layer = layer, .to_local = to_local});
      ++count;
    }
    if (count > 1) changes.push_back({.to_local = to_local});
  }
  return changes;
}

class Losses {
 public:
  Losses(std::shared_ptr<const Engine> engine, int64_t window)
      : engine_(std::move(engine)), window_(window) {}

  // Mean of -ln p over the tokens of the piece that have more than a window before them.
  double of(std::span<const Token> piece, std::vector<LayerType> types, const Watch& watch) {
    Session session = Session::with_layer_types(engine_, std::move(types), std::ssize(piece));
    std::vector<double> nll;
    // The first `window` tokens see each other whatever the reach.
    const auto first = static_cast<size_t>(window_);
    session.append(piece.first(first), watch);
    session.score(
        piece.subspan(first, piece.size() - 1 - first),
        [&](int64_t i, std::span<const float> logits) {
          const size_t at = first + static_cast<size_t>(i);
          const double log_sum = log_sum_exp(logits);
          if (!std::isfinite(log_sum))
            fail("the logits after token {} of a piece are not finite", at);
          nll.push_back(log_sum - logits[static_cast<size_t>(piece[at + 1])]);
        },
        watch);
    return mean(nll);
  }

 private:
  std::shared_ptr<const Engine> engine_;
  int64_t window_;
};

int64_t piece_tokens(const ReachOptions& options, const Config& config) {
  const auto kinds = [&](LayerType type) { return std::ranges::count(config.layer_types, type); };
  if (kinds(LayerType::kSliding) == 0 || kinds(LayerType::kFull) == 0)
    fail("the model has {} local and {} global layers; expected both", kinds(LayerType::kSliding),
         kinds(LayerType::kFull));
  const int64_t most = config.max_position_embeddings;
  const int64_t tokens = options.piece_tokens > 0
                             ? options.piece_tokens
                             : std::min<int64_t>(4 * int64_t{config.sliding_window}, most);
  if (tokens < config.sliding_window + 2 || tokens > most)
    fail_usage(
        "pieces of {} tokens given, expected {} to {}: more than the window, and no more "
        "than the model was made for",
        tokens, config.sliding_window + 2, most);
  return tokens;
}

}  // namespace

ReachStudy study_reach(const std::shared_ptr<const Engine>& engine, std::span<const Token> tokens,
                       const ReachOptions& options, const Watch& watch) {
  const Config& config = engine->config();
  ReachStudy study{.piece_tokens = piece_tokens(options, config), .window = config.sliding_window};
  const Stopwatch clock;
  const auto pieces = pieces_of(*engine, tokens, study.piece_tokens);
  study.pieces = std::ssize(pieces);
  study.predicted = study.piece_tokens - 1 - study.window;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer)
    study.sliding.push_back(config.is_sliding(layer));
  study.changes = all_changes(config);
  Losses losses(engine, study.window);
  const int64_t all = study.pieces * (1 + std::ssize(study.changes));
  int64_t done = 0;
  const auto losses_of = [&](std::vector<LayerType> types) {
    std::vector<double> list;
    for (const std::vector<Token>& piece : pieces) {
      list.push_back(losses.of(piece, types, Watch{{}, watch.stop}));
      watch.report(++done, all);
      watch.throw_if_stopped();
    }
    return list;
  };
  const std::vector<double> own = losses_of(config.layer_types);
  study.nll = mean_of_pieces(own);
  for (ReachChange& change : study.changes) {
    std::vector<double> changed = losses_of(changed_types(config, change));
    change.nll = mean_of_pieces(changed);
    for (size_t i = 0; i < changed.size(); ++i) changed[i] -= own[i];
    change.gain = mean_of_pieces(changed);
  }
  study.seconds = clock.seconds();
  return study;
}

}  // namespace lapidary
