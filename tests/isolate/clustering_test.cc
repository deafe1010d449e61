#include "isolate/clustering.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "base/rng.h"

namespace lapidary {
namespace {

// `counts[k]` directions around the k-th of a few that are at right angles.
std::vector<std::vector<float>> bunches(std::vector<int> counts, float noise, uint64_t seed) {
  const CounterRng rng(seed);
  std::vector<std::vector<float>> points;
  uint64_t draw = 0;
  for (size_t k = 0; k < counts.size(); ++k)
    for (int i = 0; i < counts[k]; ++i) {
      std::vector<float> point(8);
      for (float& x : point) x = noise * rng.normal(draw++);
      point[k] += 1;
      double square = 0;
      for (const float x : point) square += double{x} * x;
      for (float& x : point) x = static_cast<float>(x / std::sqrt(square));
      points.push_back(point);
    }
  return points;
}

class Clusters : public ::testing::TestWithParam<ClusterMethod> {};

TEST_P(Clusters, BunchesAreFoundAndCounted) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const auto points = bunches({4, 5, 3}, 0.1f, seed);
    const Clustering found = find_clusters(points, 0, 6, GetParam(), seed);
    EXPECT_EQ(found.clusters, 3);
    EXPECT_EQ(found.labels, (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2}));
    EXPECT_GT(found.silhouette, 0.7);
    EXPECT_EQ(found.by_number.size(), 5u);
    EXPECT_EQ(found.by_number[1], found.silhouette);
  }
}

TEST_P(Clusters, AsManyAsAreAskedFor) {
  const auto points = bunches({4, 5, 3}, 0.1f, 1);
  for (int k = 1; k <= 12; ++k) {
    const Clustering found = find_clusters(points, k, 6, GetParam(), 1);
    std::vector<int> counts(12);
    for (const int label : found.labels) ++counts[static_cast<size_t>(label)];
    EXPECT_EQ(12 - std::ranges::count(counts, 0), k);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, Clusters,
                         ::testing::Values(ClusterMethod::kAgglomerative, ClusterMethod::kKMeans));

// By hand: two points at distance 0.1 of each other and one at 1 from both.
TEST(Silhouette, IsRousseeuws) {
  const float c = 0.9f, s = std::sqrt(1 - c * c);
  const std::vector<std::vector<float>> points = {{1, 0, 0}, {c, s, 0}, {0, 0, 1}};
  const std::vector<int> labels = {0, 0, 1};
  EXPECT_NEAR(silhouette(points, labels), (0.9 + 0.9 + 0) / 3, 1e-6);
  EXPECT_EQ(silhouette(points, std::vector<int>{0, 0, 0}), 0);
}

TEST(Route, GoesToTheNearestMean) {
  const auto points = bunches({4, 5, 3}, 0.1f, 1);
  const std::vector<int> labels = {0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2};
  const auto fresh = bunches({1, 1, 1}, 0.1f, 99);
  for (int k = 0; k < 3; ++k) {
    const Route found = route(points, labels, fresh[static_cast<size_t>(k)]);
    EXPECT_EQ(found.cluster, k);
    EXPECT_GT(found.margin, 0.5);
    EXPECT_LE(found.cosine, 1 + 1e-6);
  }
}

}  // namespace
}  // namespace lapidary
