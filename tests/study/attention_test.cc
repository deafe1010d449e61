// The weights of attention against HF transformers, and the figures against their definitions.
#include <cmath>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/attention_study.h"
#include "lapidary/error.h"
#include "lapidary/session.h"

#include "kernels/kv_rows.h"
#include "study/attention_patterns.h"
#include "study/golden_models.h"

namespace lapidary {
namespace {

// All weights of a text, [layers][heads, T, T].
std::vector<std::vector<float>> patterns_of(const std::shared_ptr<const Engine>& engine,
                                            std::span<const Token> tokens, size_t piece) {
  const Config& config = engine->config();
  const int64_t length = std::ssize(tokens), heads = config.num_attention_heads;
  std::vector<std::vector<float>> all(
      static_cast<size_t>(config.num_hidden_layers),
      std::vector<float>(static_cast<size_t>(heads * length * length)));
  AttentionPatterns patterns(config, engine->kv_type(), 2, [&](const PatternBlock& b, int64_t) {
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t i = 0; i < b.queries; ++i)
        std::copy_n(b.row(head, i), b.keys,
                    all[static_cast<size_t>(b.layer)].data() +
                        (head * length + b.first_query + i) * length + b.first_key);
  });
  Session session(engine);
  session.set_tap(patterns.tap());
  for (size_t at = 0; at < tokens.size(); at += piece)
    session.append(tokens.subspan(at, std::min(piece, tokens.size() - at)));
  return all;
}

class Patterns : public GoldenModel {};
INSTANTIATE_TEST_SUITE_P(Models, Patterns, kGoldenModels, golden_name);

TEST_P(Patterns, AgreeWithTheReferenceWholeAndInPieces) {
  int compared = 0;
  for (const size_t piece : {ids.size(), size_t{5}}) {
    const auto all = patterns_of(engine, ids, piece);
    for (size_t layer = 0; layer < all.size(); ++layer) {
      const TensorView* expected = golden->find(fmt::format("blocks.{}.attn.hook_pattern", layer));
      if (expected == nullptr) continue;
      const std::vector<float> want = floats(*expected);
      ASSERT_EQ(want.size(), all[layer].size());
      // Weights are e to the difference of two scores of a few units, each off by some 2^-24 of
      // itself times the roundings of the layers before.
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(all[layer][i], want[i], 1e-5) << "layer " << layer << " at " << i;
      ++compared;
    }
  }
  EXPECT_GE(compared, 4);
}

// Head by head the weights times the values, as the cache has both, are what attention puts out.
TEST(AttentionPatterns, TimesValuesAreTheOutput) {
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kQ8}) {
    const auto engine =
        Engine::load(kTiny, {.compute = Compute::kExact, .kv_type = type, .threads = 2});
    const Config& c = engine->config();
    ASSERT_EQ(c.num_key_value_heads, 2);
    std::vector<Token> ids = {2};
    for (int i = 0; i < 99; ++i) ids.push_back(300 + i * i % 47);  // more than the window
    const auto all = patterns_of(engine, ids, ids.size());
    const size_t n = ids.size(), d = static_cast<size_t>(c.head_dim);
    std::vector<float> values;
    std::vector<std::byte> stored(static_cast<size_t>(kv_row_bytes(type, c.head_dim)));
    Session session(engine);
    session.set_tap([&](const Activation& a) {
      if (a.point == "attn.hook_v") {
        values.assign(a.values, a.values + a.rows * a.cols);
        for (size_t at = 0; at < values.size(); at += d) {
          store_kv_row(values.data() + at, c.head_dim, type, stored.data());
          for (int i = 0; i < c.head_dim; ++i)
            values[at + static_cast<size_t>(i)] = kv_value(stored.data(), c.head_dim, type, i);
        }
      }
      if (a.point != "attn.hook_z") return;
      double difference = 0, size = 0;
      for (size_t head = 0; head < 4; ++head)
        for (size_t query = 0; query < n; ++query) {
          const float* w = all[static_cast<size_t>(a.layer)].data() + (head * n + query) * n;
          for (size_t i = 0; i < d; ++i) {
            double sum = 0;
            for (size_t key = 0; key <= query; ++key)
              sum += double{w[key]} * values[(key * 2 + head / 2) * d + i];
            const double z = a.row(static_cast<int64_t>(query))[head * d + i];
            difference += (sum - z) * (sum - z), size += z * z;
          }
        }
      EXPECT_LE(std::sqrt(difference / size), 1e-5) << "layer " << a.layer;
    });
    session.append(ids);
  }
}

// Figures of one head from all its weights, by their definitions.
TEST(AttentionStudy, FiguresAreWhatTheyAreDefinedAs) {
  const auto engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  const Config& config = engine->config();
  std::vector<Token> ids = {2};
  for (int i = 0; i < 150; ++i) ids.push_back(300 + i * i % 47);  // some come again
  const auto all = patterns_of(engine, ids, ids.size());
  const AttentionStudy study = study_attention(engine, ids);
  const int64_t length = std::ssize(ids), heads = config.num_attention_heads;
  ASSERT_EQ(std::ssize(study.heads), heads * config.num_hidden_layers);
  EXPECT_EQ(study.picture_size, 76);  // 151 tokens, two to a pixel
  for (const HeadFigures& h : study.heads) {
    const float* w = all[static_cast<size_t>(h.layer)].data() + h.head * length * length;
    double entropy = 0, distance = 0, sink = 0, previous = 0, duplicate = 0, induction = 0;
    double repeats = 0, bins = 0;
    for (int64_t t = 1; t < length; ++t) {
      const float* row = w + t * length;
      bool any = false;
      for (int64_t k = 0; k <= t; ++k) {
        if (row[k] > 0) entropy -= row[k] * std::log(double{row[k]});
        distance += row[k] * static_cast<double>(t - k);
        const bool same = k < t && ids[static_cast<size_t>(k)] == ids[static_cast<size_t>(t)];
        any |= same;
        if (same) duplicate += row[k];
        if (same && k + 1 < t) induction += row[k + 1];
      }
      sink += row[0];
      previous += row[t - 1];
      repeats += any ? 1 : 0;
    }
    const auto n = static_cast<double>(length - 1);
    EXPECT_NEAR(h.entropy, entropy / n, 1e-5);
    EXPECT_NEAR(h.distance, distance / n, 1e-4);
    EXPECT_NEAR(h.sink, sink / n, 1e-6);
    EXPECT_NEAR(h.previous, previous / n, 1e-6);
    ASSERT_TRUE(h.duplicate && h.induction);
    EXPECT_NEAR(*h.duplicate, duplicate / repeats, 1e-6);
    EXPECT_NEAR(*h.induction, induction / repeats, 1e-6);
    for (const double share : h.by_distance) bins += share;
    EXPECT_NEAR(bins, 1, 1e-5);
  }
}

// The rollout by its definition: a row of tokens for each position, after each layer.
std::vector<std::vector<double>> rollout_of(const std::vector<std::vector<float>>& all, size_t n,
                                            size_t heads) {
  std::vector<double> r(n * n), next(n * n);
  for (size_t i = 0; i < n; ++i) r[i * n + i] = 1;
  std::vector<std::vector<double>> layers;
  for (const std::vector<float>& weights : all) {
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (size_t k = 0; k <= i; ++k) {
          double mean = 0;
          for (size_t h = 0; h < heads; ++h) mean += double{weights[(h * n + i) * n + k]};
          sum += mean / static_cast<double>(heads) * r[k * n + j];
        }
        next[i * n + j] = (r[i * n + j] + sum) / 2;
      }
    layers.push_back(r = next);
  }
  return layers;
}

TEST(AttentionStudy, RolloutIsTheProductOfLayersAlsoOfGroupsOfTokens) {
  const auto engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  std::vector<Token> ids = {2};
  for (int i = 0; i < 100; ++i) ids.push_back(300 + i * 7 % 90);
  const auto n = static_cast<size_t>(std::ssize(ids));
  const auto layers = rollout_of(patterns_of(engine, ids, ids.size()), n,
                                 static_cast<size_t>(engine->config().num_attention_heads));
  for (const auto& [most, group] : {std::pair{1024, 1}, {101, 1}, {30, 16}}) {
    const AttentionStudy study = study_attention(engine, ids, {.rollout_tokens = most});
    ASSERT_EQ(study.rollout_group, group);
    const auto size = static_cast<size_t>(group), groups = (n + size - 1) / size;
    ASSERT_EQ(study.rollout.size(), groups);
    std::vector<double> shares;
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      double sources = 0;
      for (size_t i = 0; i < n; ++i) {
        shares.assign(groups, 0);
        for (size_t j = 0; j < n; ++j) shares[j / size] += layers[layer][i * n + j];
        double entropy = 0;
        for (const double share : shares)
          if (share > 0) entropy -= share * std::log(share);
        sources += std::exp(entropy);
      }
      ASSERT_TRUE(study.layers[layer].rollout_sources);
      EXPECT_NEAR(*study.layers[layer].rollout_sources, sources / static_cast<double>(n), 1e-3);
    }
    for (size_t g = 0; g < groups; ++g) EXPECT_NEAR(study.rollout[g], shares[g], 1e-5);
  }
}

TEST(AttentionStudy, ThreadsChangeNoBit) {
  std::vector<Token> ids = {2};
  for (int i = 0; i < 200; ++i) ids.push_back(300 + i * i % 47);
  std::vector<double> before;
  for (const int threads : {1, 2, 3}) {
    const AttentionStudy study = study_attention(Engine::load(kTiny, {.threads = threads}), ids);
    std::vector<double> figures;
    for (const HeadFigures& h : study.heads)
      figures.insert(figures.end(), {h.entropy, h.distance, h.sink, *h.induction});
    for (const LayerAttention& layer : study.layers)
      figures.insert(figures.end(), {*layer.similarity, *layer.rollout_sources});
    if (!before.empty()) {
      EXPECT_EQ(figures, before) << threads;
    }
    before = figures;
  }
}

TEST(AttentionStudy, NeedsTwoTokens) {
  const auto engine = Engine::load(kTiny, {});
  EXPECT_THROW(study_attention(engine, std::vector<Token>{2}), Error);
}

}  // namespace
}  // namespace lapidary
