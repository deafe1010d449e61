#include "isolate/clustering.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/fail.h"
#include "base/rng.h"

namespace lapidary {

namespace {

using Points = std::span<const std::vector<float>>;

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * b[i];
  return sum;
}

void scale_to_one(std::vector<float>& v) {
  const double length = std::sqrt(dot(v, v));
  for (float& x : v) x = length > 0 ? static_cast<float>(x / length) : 0;
}

std::vector<std::vector<double>> distances(Points points) {
  std::vector<std::vector<double>> d(points.size(), std::vector<double>(points.size()));
  for (size_t i = 0; i < points.size(); ++i)
    for (size_t j = 0; j < i; ++j) d[i][j] = d[j][i] = 1 - dot(points[i], points[j]);
  return d;
}

// Labels in the order in which they first occur.
std::vector<int> renumbered(std::span<const int> labels) {
  std::vector<int> seen, out;
  for (const int label : labels) {
    auto found = std::ranges::find(seen, label);
    if (found == seen.end()) found = seen.insert(seen.end(), label);
    out.push_back(static_cast<int>(found - seen.begin()));
  }
  return out;
}

std::vector<int> agglomerate(Points points, int k) {
  const auto d = distances(points);
  std::vector<std::vector<size_t>> groups;
  for (size_t i = 0; i < points.size(); ++i) groups.push_back({i});
  const auto apart = [&](const std::vector<size_t>& a, const std::vector<size_t>& b) {
    double sum = 0;
    for (const size_t i : a)
      for (const size_t j : b) sum += d[i][j];
    return sum / static_cast<double>(a.size() * b.size());
  };
  while (std::ssize(groups) > k) {
    size_t first = 0, second = 1;
    double nearest = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < groups.size(); ++i)
      for (size_t j = i + 1; j < groups.size(); ++j)
        if (const double distance = apart(groups[i], groups[j]); distance < nearest) {
          nearest = distance;
          first = i, second = j;
        }
    groups[first].insert(groups[first].end(), groups[second].begin(), groups[second].end());
    groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(second));
  }
  std::vector<int> labels(points.size());
  for (size_t g = 0; g < groups.size(); ++g)
    for (const size_t i : groups[g]) labels[i] = static_cast<int>(g);
  return renumbered(labels);
}

std::vector<std::vector<float>> centres_of(Points points, std::span<const int> labels, int k) {
  std::vector<std::vector<float>> centres(static_cast<size_t>(k),
                                          std::vector<float>(points[0].size()));
  for (size_t i = 0; i < points.size(); ++i) {
    std::vector<float>& centre = centres[static_cast<size_t>(labels[i])];
    for (size_t j = 0; j < centre.size(); ++j) centre[j] += points[i][j];
  }
  for (std::vector<float>& centre : centres) scale_to_one(centre);
  return centres;
}

size_t nearest_centre(Points centres, std::span<const float> point) {
  size_t best = 0;
  for (size_t c = 1; c < centres.size(); ++c)
    if (dot(centres[c], point) > dot(centres[best], point)) best = c;
  return best;
}

// k-means++: each next centre is a point drawn by its squared distance from those there are.
std::vector<std::vector<float>> first_centres(Points points, int k, const CounterRng& rng) {
  std::vector<std::vector<float>> centres = {points[rng.bits(0) % points.size()]};
  while (std::ssize(centres) < k) {
    std::vector<double> weights;
    for (const std::vector<float>& point : points) {
      const double near = 1 - dot(centres[nearest_centre(centres, point)], point);
      weights.push_back(near > 0 ? near * near : 0);
    }
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    double at = static_cast<double>(rng.bits(centres.size()) >> 11) * 0x1p-53 * sum;
    size_t chosen = 0;
    while (chosen + 1 < points.size() && (at -= weights[chosen]) >= 0) ++chosen;
    centres.push_back(points[chosen]);
  }
  return centres;
}

std::vector<int> k_means(Points points, int k, uint64_t seed) {
  constexpr int kStarts = 10, kMoves = 100;
  std::vector<int> best;
  double best_sum = -std::numeric_limits<double>::infinity();
  for (int start = 0; start < kStarts; ++start) {
    auto centres = first_centres(points, k, CounterRng(mix64(seed) + static_cast<uint64_t>(start)));
    std::vector<int> labels(points.size(), -1);
    for (int move = 0; move < kMoves; ++move) {
      std::vector<int> now;
      for (const std::vector<float>& point : points)
        now.push_back(static_cast<int>(nearest_centre(centres, point)));
      if (now == labels) break;
      labels = std::move(now);
      centres = centres_of(points, labels, k);
    }
    double sum = 0;
    for (size_t i = 0; i < points.size(); ++i)
      sum += dot(centres[static_cast<size_t>(labels[i])], points[i]);
    if (sum > best_sum) best_sum = sum, best = labels;
  }
  return renumbered(best);
}

}  // namespace

ClusterMethod cluster_method_named(std::string_view name) {
  if (name == "agglomerative") return ClusterMethod::kAgglomerative;
  if (name == "kmeans") return ClusterMethod::kKMeans;
  fail_usage("clustering '{}' does not exist, expected agglomerative or kmeans", name);
}

std::vector<float> mean_of(std::span<const std::vector<float>> embeddings) {
  std::vector<double> sum(embeddings[0].size());
  for (const std::vector<float>& point : embeddings)
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += point[i];
  std::vector<float> mean;
  for (const double s : sum)
    mean.push_back(static_cast<float>(s / static_cast<double>(embeddings.size())));
  return mean;
}

std::vector<std::vector<float>> centred(std::span<const std::vector<float>> embeddings,
                                        std::span<const float> mean) {
  std::vector<std::vector<float>> points(embeddings.begin(), embeddings.end());
  for (std::vector<float>& point : points) {
    for (size_t i = 0; i < mean.size(); ++i) point[i] -= mean[i];
    scale_to_one(point);
  }
  return points;
}

std::vector<int> cluster_into(std::span<const std::vector<float>> points, int k,
                              ClusterMethod method, uint64_t seed) {
  LAPIDARY_CHECK(k >= 1 && k <= std::ssize(points), "as many clusters as points, at most");
  return method == ClusterMethod::kAgglomerative ? agglomerate(points, k)
                                                 : k_means(points, k, seed);
}

double silhouette(std::span<const std::vector<float>> points, std::span<const int> labels) {
  if (labels.empty()) return 0;
  const auto clusters = static_cast<size_t>(*std::ranges::max_element(labels)) + 1;
  if (clusters < 2) return 0;
  const auto d = distances(points);
  double total = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    std::vector<double> sums(clusters), counts(clusters);
    for (size_t j = 0; j < points.size(); ++j) {
      if (j == i) continue;
      sums[static_cast<size_t>(labels[j])] += d[i][j];
      counts[static_cast<size_t>(labels[j])] += 1;
    }
    const auto own = static_cast<size_t>(labels[i]);
    if (counts[own] == 0) continue;
    double next = std::numeric_limits<double>::infinity();
    for (size_t c = 0; c < clusters; ++c)
      if (c != own && counts[c] > 0) next = std::min(next, sums[c] / counts[c]);
    const double inner = sums[own] / counts[own], larger = std::max(inner, next);
    if (larger > 0) total += (next - inner) / larger;
  }
  return total / static_cast<double>(points.size());
}

Clustering find_clusters(std::span<const std::vector<float>> points, int clusters, int most,
                         ClusterMethod method, uint64_t seed) {
  const int n = static_cast<int>(points.size());
  Clustering best;
  const auto consider = [&](int k) {
    std::vector<int> labels = cluster_into(points, k, method, seed);
    const double score = silhouette(points, labels);
    if (best.clusters == 0 || score > best.silhouette)
      best = {std::move(labels), k, score, std::move(best.by_number)};
    return score;
  };
  if (clusters > 0 || n < 3) {
    consider(std::clamp(clusters, 1, std::max(n, 1)));
    return best;
  }
  std::vector<double> scores;
  for (int k = 2; k <= std::min(most, n - 1); ++k) scores.push_back(consider(k));
  best.by_number = std::move(scores);
  return best;
}

Route route(std::span<const std::vector<float>> points, std::span<const int> labels,
            std::span<const float> point) {
  const int clusters = *std::ranges::max_element(labels) + 1;
  const auto centres = centres_of(points, labels, clusters);
  Route found{.cosine = -2};
  double second = -2;
  for (int c = 0; c < clusters; ++c) {
    const double cosine =
        dot(centres[static_cast<size_t>(c)], point) / std::sqrt(dot(point, point));
    if (cosine > found.cosine)
      second = found.cosine, found.cosine = cosine, found.cluster = c;
    else
      second = std::max(second, cosine);
  }
  found.margin = clusters > 1 ? found.cosine - second : 0;
  return found;
}

}  // namespace lapidary
