// What the same queries look at when more of the text is there.
#include <algorithm>

#include "lapidary/attention_study.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "study/attention_patterns.h"
#include "study/head_sums.h"
#include "study/pieces.h"

namespace lapidary {

namespace {

void check(const LengthOptions& options, const Config& config) {
  if (options.lengths.empty()) fail_usage("lengths: none given");
  if (options.queries < 1) fail_usage("queries: {} is not positive", options.queries);
  int64_t last = 3;
  for (const int64_t length : options.lengths) {
    if (length <= last) fail_usage("lengths: {} given, expected more than {}", length, last);
    if (length > config.max_position_embeddings)
      fail_usage("lengths: {} given, the model was made for {}", length,
                 config.max_position_embeddings);
    last = length;
  }
}

// Figures of all heads over the last queries of a text, layer by layer.
std::vector<HeadFigures> last_queries(const std::shared_ptr<const Engine>& engine,
                                      std::span<const Token> tokens, int64_t queries,
                                      const Watch& watch) {
  const Config& config = engine->config();
  const auto heads = static_cast<size_t>(config.num_attention_heads);
  const std::vector<int64_t> before = same_before(tokens);
  std::vector<HeadSums> all(static_cast<size_t>(config.num_hidden_layers) * heads);
  // A block's sums, so that adding them up in the order of the text needs no order of threads.
  std::vector<std::vector<HeadSums>> blocks(static_cast<size_t>(queries / kPatternQueries + 2));
  AttentionPatterns patterns(
      config, engine->kv_type(), engine->threads(),
      [&](const PatternBlock& b, int64_t slot) {
        std::vector<HeadSums>& sums = blocks[static_cast<size_t>(slot)];
        sums.assign(heads, {});
        for (size_t head = 0; head < heads; ++head)
          sums[head].add(b, static_cast<int64_t>(head), before);
      },
      [&](int layer, int64_t slots) {
        for (int64_t slot = 0; slot < slots; ++slot)
          for (size_t head = 0; head < heads; ++head)
            all[static_cast<size_t>(layer) * heads + head].add(
                blocks[static_cast<size_t>(slot)][head]);
      },
      std::ssize(tokens) - queries);
  Session session(engine, std::ssize(tokens));
  session.set_tap(patterns.tap());
  session.append(tokens, Watch{{}, watch.stop});
  std::vector<HeadFigures> figures;
  for (size_t i = 0; i < all.size(); ++i)
    figures.push_back(all[i].figures(static_cast<int>(i / heads), static_cast<int>(i % heads)));
  return figures;
}

// A figure of each piece, its heads' mean or largest over the layers of a kind.
template <class Value>
std::vector<double> over_heads(const std::vector<std::vector<HeadFigures>>& pieces,
                               const Config& config, bool sliding, bool largest, Value&& value) {
  std::vector<double> result;
  for (const std::vector<HeadFigures>& heads : pieces) {
    double sum = 0, most = 0, count = 0;
    for (const HeadFigures& h : heads) {
      if (config.is_sliding(h.layer) != sliding) continue;
      sum += value(h);
      most = std::max(most, value(h));
      count += 1;
    }
    result.push_back(largest ? most : sum / count);
  }
  return result;
}

AttentionAtLength of_kind(const std::vector<std::vector<HeadFigures>>& pieces, const Config& config,
                          int64_t length, bool sliding) {
  const auto mean = [&](double HeadFigures::*figure) {
    return mean_of_pieces(
        over_heads(pieces, config, sliding, false, [&](auto& h) { return h.*figure; }));
  };
  AttentionAtLength at{.length = length, .sliding = sliding};
  at.entropy = mean(&HeadFigures::entropy);
  at.effective_keys = mean(&HeadFigures::effective_keys);
  at.distance = mean(&HeadFigures::distance);
  at.sink = mean(&HeadFigures::sink);
  at.previous = mean(&HeadFigures::previous);
  at.self = mean(&HeadFigures::self);
  at.best_previous =
      mean_of_pieces(over_heads(pieces, config, sliding, true, [](auto& h) { return h.previous; }));
  // Of pieces in which a token came again: whether it did is the same for all heads.
  std::vector<std::vector<HeadFigures>> repeating;
  for (const auto& heads : pieces)
    if (heads.front().induction) repeating.push_back(heads);
  if (!repeating.empty())
    at.best_induction = mean_of_pieces(
        over_heads(repeating, config, sliding, true, [](auto& h) { return *h.induction; }));
  return at;
}

std::vector<HeadFigures> mean_heads(const std::vector<std::vector<HeadFigures>>& pieces) {
  std::vector<HeadFigures> heads;
  for (size_t i = 0; i < pieces.front().size(); ++i) {
    HeadFigures h{.layer = pieces.front()[i].layer, .head = pieces.front()[i].head};
    const double share = 1 / static_cast<double>(pieces.size());
    double repeating = 0, duplicate = 0, induction = 0;
    for (const auto& piece : pieces) {
      const HeadFigures& f = piece[i];
      for (auto figure :
           {&HeadFigures::entropy, &HeadFigures::effective_keys, &HeadFigures::distance,
            &HeadFigures::sink, &HeadFigures::previous, &HeadFigures::self})
        h.*figure += share * (f.*figure);
      h.by_distance.resize(std::max(h.by_distance.size(), f.by_distance.size()));
      for (size_t k = 0; k < f.by_distance.size(); ++k)
        h.by_distance[k] += share * f.by_distance[k];
      if (!f.induction) continue;
      repeating += 1, duplicate += *f.duplicate, induction += *f.induction;
    }
    if (repeating > 0) {
      h.duplicate = duplicate / repeating;
      h.induction = induction / repeating;
    }
    heads.push_back(std::move(h));
  }
  return heads;
}

}  // namespace

AttentionByLength attention_by_length(const std::shared_ptr<const Engine>& engine,
                                      std::span<const Token> tokens, const LengthOptions& options,
                                      const Watch& watch) {
  const Config& config = engine->config();
  check(options, config);
  const Stopwatch clock;
  const auto pieces = pieces_of(*engine, tokens, options.lengths.back());
  const size_t given = given_tokens(*engine, tokens);
  AttentionByLength result{.pieces = std::ssize(pieces),
                           .queries = std::min(options.queries, options.lengths.front() / 2),
                           .lengths = options.lengths};
  int64_t done = 0, all = 0;
  for (const int64_t length : options.lengths) all += length * result.pieces;
  for (const int64_t length : options.lengths) {
    std::vector<std::vector<HeadFigures>> figures;
    for (const std::vector<Token>& piece : pieces) {
      std::vector<Token> part(piece.begin(), piece.begin() + static_cast<int64_t>(given));
      part.insert(part.end(), piece.end() - (length - static_cast<int64_t>(given)), piece.end());
      figures.push_back(last_queries(engine, part, result.queries, watch));
      watch.report(done += length, all);
      watch.throw_if_stopped();
    }
    for (const bool sliding : {true, false})
      if (std::ranges::count(config.layer_types, sliding ? LayerType::kSliding : LayerType::kFull))
        result.kinds.push_back(of_kind(figures, config, length, sliding));
    result.heads.push_back(mean_heads(figures));
  }
  result.seconds = clock.seconds();
  return result;
}

}  // namespace lapidary
