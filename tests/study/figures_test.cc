// Figures of layers and of attention by their definitions, from activations and weights themselves.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "lapidary/attention_study.h"
#include "lapidary/layer_study.h"
#include "lapidary/session.h"

#include "io/test_files.h"
#include "study/golden_models.h"

namespace lapidary {
namespace {

using Row = std::vector<double>;

std::vector<Token> some_ids(int count) {
  std::vector<Token> ids = {2};
  for (int i = 1; i < count; ++i) ids.push_back(300 + i * i % 47);  // some come again
  return ids;
}

// The rows at every point, by its name.
std::map<std::string, std::vector<Row>> rows_of(const std::shared_ptr<const Engine>& engine,
                                                std::span<const Token> ids) {
  std::map<std::string, std::vector<Row>> rows;
  Session session(engine);
  session.set_tap([&](const Activation& a) {
    for (int64_t i = 0; i < a.rows; ++i) rows[a.name()].emplace_back(a.row(i), a.row(i) + a.cols);
  });
  session.append(ids);
  return rows;
}

double length_of(const Row& row) {
  double sum = 0;
  for (const double x : row) sum += x * x;
  return std::sqrt(sum);
}

class LayerDefinitions : public ::testing::Test {
 protected:
  const std::shared_ptr<const Engine> engine =
      Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  const std::vector<Token> ids = some_ids(90);
  std::map<std::string, std::vector<Row>> rows = rows_of(engine, ids);
};

TEST_F(LayerDefinitions, OfFeatures) {
  const LayerStudy study = study_layers(engine, ids, {.lens_sample = 1});
  double embedding = 0;
  for (const Row& row : rows["hook_embed"]) embedding += length_of(row) / 90;
  EXPECT_NEAR(study.embedding_norm / embedding, 1, 1e-6);
  for (const LayerFigures& f : study.layers) {
    const std::vector<Row>& stream = rows[tap_name(f.layer, "hook_resid_post")];
    double kurtosis = 0;
    Row squares(stream[0].size());
    for (const Row& row : stream) {
      const auto n = static_cast<double>(row.size());
      double mean = 0, second = 0, fourth = 0;
      for (const double x : row) mean += x / n;
      for (const double x : row) {
        second += std::pow(x - mean, 2) / n;
        fourth += std::pow(x - mean, 4) / n;
      }
      kurtosis += fourth / (second * second) / 90;
      for (size_t k = 0; k < row.size(); ++k) squares[k] += row[k] * row[k];
    }
    EXPECT_NEAR(f.kurtosis / kurtosis, 1, 1e-6);
    const auto largest = std::ranges::max_element(squares);
    EXPECT_EQ(f.outlier, largest - squares.begin());
    const double most = *largest;
    Row sorted = squares;
    std::ranges::sort(sorted);
    const size_t half = sorted.size() / 2;  // of an even number
    const double median = (sorted[half - 1] + sorted[half]) / 2;
    EXPECT_NEAR(f.outlier_ratio, std::sqrt(most / median), 1e-5);
    ASSERT_EQ(f.features.size(), squares.size());
    for (size_t k = 0; k < squares.size(); ++k)
      EXPECT_NEAR(f.features[k], std::sqrt(squares[k] / median), 1e-5);
  }
}

// Eigenvalues of a symmetric matrix, by Jacobi's rotations.
Row eigenvalues(std::vector<Row> m) {
  const size_t n = m.size();
  for (int sweep = 0; sweep < 30; ++sweep)
    for (size_t p = 0; p < n; ++p)
      for (size_t q = p + 1; q < n; ++q) {
        const double angle = 0.5 * std::atan2(2 * m[p][q], m[q][q] - m[p][p]);
        const double c = std::cos(angle), s = std::sin(angle);
        for (size_t k = 0; k < n; ++k) {
          const double a = m[k][p], b = m[k][q];
          m[k][p] = c * a - s * b, m[k][q] = s * a + c * b;
        }
        for (size_t k = 0; k < n; ++k) {
          const double a = m[p][k], b = m[q][k];
          m[p][k] = c * a - s * b, m[q][k] = s * a + c * b;
        }
      }
  Row values;
  for (size_t i = 0; i < n; ++i) values.push_back(m[i][i]);
  return values;
}

TEST_F(LayerDefinitions, OfRankAndPositions) {
  const LayerStudy study = study_layers(engine, ids, {.sample = 6, .lens_sample = 1});
  EXPECT_EQ(study.sampled, 6);
  for (const LayerFigures& f : study.layers) {
    std::vector<Row> sample;
    for (size_t p = 14; p < 90; p += 15)
      sample.push_back(rows[tap_name(f.layer, "hook_resid_post")][p]);
    for (size_t k = 0; k < sample[0].size(); ++k) {
      double mean = 0;
      for (const Row& row : sample) mean += row[k] / 6;
      for (Row& row : sample) row[k] -= mean;
    }
    // Rows' products with each other have the eigenvalues of the covariance, times a factor.
    std::vector<Row> gram(6, Row(6));
    double trace = 0, entropy = 0;
    for (size_t i = 0; i < 6; ++i)
      for (size_t j = 0; j < 6; ++j)
        for (size_t k = 0; k < sample[0].size(); ++k) gram[i][j] += sample[i][k] * sample[j][k];
    for (size_t i = 0; i < 6; ++i) trace += gram[i][i];
    for (const double v : eigenvalues(gram))
      if (v > 1e-9 * trace) entropy -= v / trace * std::log(v / trace);
    EXPECT_NEAR(f.effective_rank, std::exp(entropy), 1e-3);
    EXPECT_LE(f.effective_rank, 5 + 1e-3);  // six points span five directions
  }
}

// More positions than are looked at in one go, and fewer.
TEST_F(LayerDefinitions, OfTheLensAtSomePositions) {
  const int layer = 2;
  const auto logits_at = [&](int of, const std::vector<size_t>& positions) {
    std::vector<float> wanted;
    for (const size_t p : positions) {
      const Row& row = rows[tap_name(of, "hook_resid_post")][p];
      wanted.insert(wanted.end(), row.begin(), row.end());
    }
    std::vector<Row> list(positions.size());
    engine->read_stream(wanted, [&](int64_t i, std::span<const float> logits) {
      list[static_cast<size_t>(i)].assign(logits.begin(), logits.end());
    });
    return list;
  };
  for (const int64_t count : {4, 80}) {
    const LayerStudy study = study_layers(engine, ids, {.lens_sample = count});
    EXPECT_EQ(study.lens_sampled, count);
    std::vector<size_t> positions;  // of the 89 that predict something
    for (int64_t i = 1; i <= count; ++i)
      positions.push_back(static_cast<size_t>(i * 89 / count - 1));
    const auto lens = logits_at(layer, positions);
    const auto own = logits_at(engine->config().num_hidden_layers - 1, positions);
    LensFigures mean;
    const double share = 1 / static_cast<double>(count);
    for (size_t i = 0; i < positions.size(); ++i) {
      const Row& q = lens[i];
      const Row& p = own[i];
      double sum_q = 0, sum_p = 0;
      for (size_t v = 0; v < q.size(); ++v) sum_q += std::exp(q[v]), sum_p += std::exp(p[v]);
      const double log_q = std::log(sum_q), log_p = std::log(sum_p);
      for (size_t v = 0; v < q.size(); ++v) {
        mean.entropy -= share * std::exp(q[v] - log_q) * (q[v] - log_q);
        mean.kl_to_final += share * std::exp(p[v] - log_p) * (p[v] - log_p - (q[v] - log_q));
      }
      mean.target_nll += share * (log_q - q[static_cast<size_t>(ids[positions[i] + 1])]);
      const auto same = std::ranges::max_element(q) - q.begin();
      mean.top1 += same == std::ranges::max_element(p) - p.begin() ? share : 0;
    }
    const LensFigures& got = study.layers[layer].lens;
    EXPECT_NEAR(got.entropy, mean.entropy, 1e-4);
    EXPECT_NEAR(got.kl_to_final, mean.kl_to_final, 1e-4);
    EXPECT_NEAR(got.target_nll, mean.target_nll, 1e-4);
    EXPECT_NEAR(got.top1, mean.top1, 1e-9);
    EXPECT_LT(got.top1, 1);
  }
}

class AttentionDefinitions : public ::testing::Test {
 protected:
  AttentionDefinitions() {
    study = study_attention(engine, ids, {.picture_size = 80, .patterns = {.file = file}});
    const SafetensorsFile saved = SafetensorsFile::open(file);
    for (int layer = 0; layer < engine->config().num_hidden_layers; ++layer)
      weights.push_back(floats(*saved.find(tap_name(layer, "attn.hook_pattern"))));
  }
  double weight(int layer, int64_t head, int64_t query, int64_t key) const {
    return weights[static_cast<size_t>(layer)]
                  [static_cast<size_t>((head * 150 + query) * 150 + key)];
  }
  double cosine(int layer, int64_t g, int64_t h, int64_t query) const {
    double gg = 0, hh = 0, gh = 0;
    for (int64_t k = 0; k <= query; ++k) {
      const double a = weight(layer, g, query, k), b = weight(layer, h, query, k);
      gg += a * a, hh += b * b, gh += a * b;
    }
    return gh / std::sqrt(gg * hh);
  }

  const ScratchFolder scratch;
  const std::filesystem::path file = scratch.path() / "patterns.safetensors";
  const std::shared_ptr<const Engine> engine =
      Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  const std::vector<Token> ids = some_ids(150);
  AttentionStudy study;
  std::vector<std::vector<float>> weights;  // by layer, [heads, 150, 150]
};

TEST_F(AttentionDefinitions, OfHeads) {
  for (const HeadFigures& h : study.heads) {
    double self = 0, effective = 0;
    std::vector<double> bins(9);  // 0, 1, 2-3, ..., 128-255
    for (int64_t t = 1; t < 150; ++t) {
      double entropy = 0;
      for (int64_t k = 0; k <= t; ++k) {
        const double w = weight(h.layer, h.head, t, k);
        if (w > 0) entropy -= w * std::log(w);
        size_t bin = 0;
        for (int64_t distance = t - k; distance > 0; distance /= 2) ++bin;
        bins[bin] += w / 149;
      }
      self += weight(h.layer, h.head, t, t) / 149;
      effective += std::exp(entropy) / 149;
    }
    EXPECT_NEAR(h.self, self, 1e-6);
    EXPECT_NEAR(h.effective_keys, effective, 1e-3);
    ASSERT_LE(h.by_distance.size(), bins.size());
    bins.resize(h.by_distance.size());
    for (size_t i = 0; i < bins.size(); ++i) EXPECT_NEAR(h.by_distance[i], bins[i], 1e-6) << i;
  }
}

TEST_F(AttentionDefinitions, OfLikeness) {  // heads 0 and 1 share keys, and 2 and 3
  for (const LayerAttention& layer : study.layers) {
    double shared = 0, other = 0;
    for (int64_t t = 1; t < 150; ++t)
      for (int64_t h = 0; h < 4; ++h)
        for (int64_t g = 0; g < h; ++g)
          (g / 2 == h / 2 ? shared : other) += cosine(layer.layer, g, h, t);
    EXPECT_NEAR(*layer.shared_similarity, shared / 149 / 2, 1e-5);
    EXPECT_NEAR(*layer.other_similarity, other / 149 / 4, 1e-5);
    EXPECT_NEAR(*layer.similarity, (shared + other) / 149 / 6, 1e-5);
  }
}

TEST_F(AttentionDefinitions, OfPictures) {
  ASSERT_EQ(study.picture_scale, 2);
  ASSERT_EQ(study.picture_size, 75);
  for (const PatternPicture& picture : study.pictures)
    for (int64_t y = 0; y < 75; ++y)
      for (int64_t x = 0; x < 75; ++x) {
        double most = 0;
        for (int64_t i = 0; i < 4; ++i)
          most = std::max(most, weight(picture.layer, picture.head, 2 * y + i / 2, 2 * x + i % 2));
        ASSERT_EQ(picture.pixels[static_cast<size_t>(y * 75 + x)], static_cast<float>(most));
      }
}

}  // namespace
}  // namespace lapidary
