// Groups of turns that are about the same thing, found from their embeddings.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace lapidary {

enum class ClusterMethod {
  kAgglomerative,  // joins the two groups whose members are nearest on average, again and again
  kKMeans,         // moves centres from a seeded start, the best of several
};
ClusterMethod cluster_method_named(std::string_view name);  // throws Error{kUsage}

std::vector<float> mean_of(std::span<const std::vector<float>> embeddings);
// Embeddings of a conversation share most of their direction: their mean is taken out of each, and
// what is left is scaled to length 1.
std::vector<std::vector<float>> centred(std::span<const std::vector<float>> embeddings,
                                        std::span<const float> mean);

// A label 0 ... k - 1 for each, numbered as they first occur; distances are 1 - cosine of points of
// length 1. 1 <= k <= n.
std::vector<int> cluster_into(std::span<const std::vector<float>> points, int k,
                              ClusterMethod method, uint64_t seed);

// How much nearer points are to their own cluster than to the next one, on average: -1 ... 1; a
// cluster of one counts 0 (Rousseeuw, 1987). 0 of a single cluster.
double silhouette(std::span<const std::vector<float>> points, std::span<const int> labels);

struct Clustering {
  std::vector<int> labels;
  int clusters = 0;
  double silhouette = 0;
  std::vector<double> by_number = {};  // silhouettes of 2, 3, ... clusters that were tried
};
// `clusters` of them or, when 0, from 2 to `most` the number whose silhouette is largest.
Clustering find_clusters(std::span<const std::vector<float>> points, int clusters, int most,
                         ClusterMethod method, uint64_t seed);

// The cluster whose mean of `points` is nearest to a new point, by cosine.
struct Route {
  int cluster = 0;
  double cosine = 0;
  double margin = 0;  // over the next best
};
Route route(std::span<const std::vector<float>> points, std::span<const int> labels,
            std::span<const float> point);

}  // namespace lapidary
