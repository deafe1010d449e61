// The clusters of a conversation, found from what a model makes of its turns.
#pragma once

#include <memory>
#include <vector>

#include "lapidary/engine.h"

#include "isolate/clustering.h"
#include "isolate/example.h"
#include "isolate/plan.h"

namespace lapidary {

// Two thirds of the way up, where a layer speaks of what a text is about rather than of its next
// word.
int default_layer(const Engine& engine);

struct FindOptions {
  ClusterMethod method = ClusterMethod::kAgglomerative;
  int clusters = 0;  // 0: the number with the largest silhouette, up to 6
  int layer = 0;     // whose residual stream is averaged; 0: two thirds of the way up
  uint64_t seed = 42;
};

struct FoundClusters {
  int layer = 0;
  std::vector<int> labels;                 // of all turns; -1: no text, or of a synthesis cluster
  std::vector<size_t> turns;               // those that were put into clusters
  std::vector<std::vector<float>> points;  // of them, centred
  std::vector<float> mean;                 // what was taken out of them
  Clustering clustering;                   // of `points`
  double rand_index = 0;          // agreement with the file's clusters: adjusted Rand index
  double mutual_information = 0;  // and normalised mutual information
};
// Throws Error{kInput} for fewer than two turns with text.
FoundClusters find_clusters(const Engine& engine, const IsolationExample& example,
                            const PlanOptions& options, const FindOptions& find);

// Where a new turn belongs.
Route route_turn(const Engine& engine, const FoundClusters& found, std::string_view text);

}  // namespace lapidary
