#include "isolate/find_clusters.h"

#include <fmt/format.h>

#include "base/fail.h"
#include "isolate/agreement.h"

namespace lapidary {

namespace {

constexpr int kMostClusters = 6;

// What is wrong with a text, as that it is too long, is said of the turn.
std::vector<float> embed_named(const Embed& embed, std::string_view text, const std::string& name) {
  try {
    return embed(text);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInterrupted) throw;
    throw Error(e.kind(), name + ": " + e.what(), e.hint());
  }
}

}  // namespace

int default_layer(const Engine& engine) {
  return (2 * engine.config().num_hidden_layers + 2) / 3;
}

Embed embed_by_layer(const Engine& engine, int layer) {
  return [&engine, layer](std::string_view text) {
    return engine.embed(context_tokens(engine.tokenizer(), text, false), layer);
  };
}

FoundClusters find_clusters(const Embed& embed, const IsolationExample& example,
                            const PlanOptions& options, const FindOptions& find) {
  FoundClusters found;
  found.labels.assign(example.turns.size(), -1);
  std::vector<std::vector<float>> embeddings;
  std::vector<int> given;
  for (size_t i = 0; i < example.turns.size(); ++i) {
    const IsolationTurn& turn = example.turns[i];
    const auto text = turn_text(turn, options);
    if (!text || example.clusters[turn.cluster].synthesis()) continue;
    found.turns.push_back(i);
    given.push_back(static_cast<int>(turn.cluster));
    embeddings.push_back(
        embed_named(embed, *text, fmt::format("{}: turn {}", example.id, turn.id)));
  }
  if (found.turns.size() < 2) fail("{}: fewer than two turns with text", example.id);
  if (find.clusters > std::ssize(found.turns))
    fail("{}: has {} turns with text, {} clusters were asked for", example.id, found.turns.size(),
         find.clusters);
  found.mean = mean_of(embeddings);
  found.points = centred(embeddings, found.mean);
  found.clustering =
      find_clusters(found.points, find.clusters, kMostClusters, find.method, find.seed);
  for (size_t i = 0; i < found.turns.size(); ++i)
    found.labels[found.turns[i]] = found.clustering.labels[i];
  found.rand_index = adjusted_rand_index(found.clustering.labels, given);
  found.mutual_information = normalized_mutual_information(found.clustering.labels, given);
  return found;
}

Route route_turn(const Embed& embed, const FoundClusters& found, std::string_view text) {
  const std::vector<float> embedding[] = {embed_named(embed, text, "the new turn")};
  return route(found.points, found.clustering.labels, centred(embedding, found.mean)[0]);
}

}  // namespace lapidary
