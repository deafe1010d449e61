#include "lapidary/sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/rng.h"

namespace lapidary {
namespace {

// All filters off.
SamplerOptions plain() {
  SamplerOptions o;
  o.top_k = 0;
  o.top_p = 1;
  return o;
}

Token pick(const SamplerOptions& o, const std::vector<float>& logits,
           const std::vector<Token>& timeline = {}) {
  return sample(o, logits, timeline, static_cast<int>(logits.size()));
}

// How often each token comes over `draws` positions.
std::map<Token, int> frequencies(const SamplerOptions& o, const std::vector<float>& logits,
                                 int draws) {
  std::map<Token, int> counts;
  for (int i = 0; i < draws; ++i) {
    ++counts[pick(o, logits, std::vector<Token>(static_cast<size_t>(i), Token{0}))];
  }
  return counts;
}

std::set<Token> support(const SamplerOptions& o, const std::vector<float>& logits) {
  std::set<Token> tokens;
  for (const auto& [id, count] : frequencies(o, logits, 3000)) tokens.insert(id);
  return tokens;
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  SamplerOptions o;
  o.temperature = 0;
  EXPECT_EQ(pick(o, {1, 3, 2, 3}), 1);
  EXPECT_EQ(sample(o, std::vector<float>{1, 2, 9}, {}, 2), 1) << "rows of padding are not chosen";
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  for (const double temperature : {0.0, 1.0})
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      SamplerOptions o;
      o.temperature = temperature;
      try {
        pick(o, {1, bad, 2});
        ADD_FAILURE() << "no error for " << bad;
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kInput);
        EXPECT_STREQ(e.what(), "logits are not finite");
      }
    }
}

TEST(Sampler, TopKKeepsTheLargest) {
  SamplerOptions o = plain();
  o.top_k = 2;
  EXPECT_EQ(support(o, {0.1f, 0.4f, 0.2f, 0.3f}), (std::set<Token>{1, 3}));
  EXPECT_EQ(support(o, {1, 1, 1, 1}), (std::set<Token>{0, 1})) << "the lowest ids among equals";
}

TEST(Sampler, TopKOfALargeVocabularyIsThatOfASort) {
  const CounterRng rng(5);
  std::vector<float> logits(50000);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = std::round(rng.normal(i) * 50) / 50;  // many equal
  std::vector<Token> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  SamplerOptions o = plain();
  o.temperature = 1000;  // all that is left is about equally likely
  for (const int k : {1, 7, 64}) {
    o.top_k = k;
    EXPECT_EQ(support(o, logits), std::set<Token>(order.begin(), order.begin() + k)) << k;
  }
}

TEST(Sampler, TopPKeepsTheTokenThatReachesIt) {
  SamplerOptions o = plain();
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.3f),
                                     std::log(0.1f)};
  o.top_p = 0.49;
  EXPECT_EQ(support(o, logits), (std::set<Token>{1}));
  o.top_p = 0.6;
  EXPECT_EQ(support(o, logits), (std::set<Token>{1, 2}));
  o.top_p = 0.85;
  EXPECT_EQ(support(o, logits), (std::set<Token>{0, 1, 2}));
}

TEST(Sampler, TopPReachesFarIntoAFlatVocabulary) {
  SamplerOptions o = plain();
  o.top_p = 0.5;
  const auto counts = frequencies(o, std::vector<float>(4000, 0.0f), 3000);
  EXPECT_LT(counts.rbegin()->first, 2001);
  EXPECT_GT(counts.rbegin()->first, 1900);
}

TEST(Sampler, MinPIsRelativeToTheMostLikely) {
  SamplerOptions o = plain();
  const std::vector<float> logits = {std::log(0.5f), std::log(0.26f), std::log(0.24f)};
  o.min_p = 0.5;
  EXPECT_EQ(support(o, logits), (std::set<Token>{0, 1}));
}

TEST(Sampler, FiltersFollowEachOther) {
  // top_k leaves 0.4 and 0.3, which are then 0.57 and 0.43: top_p 0.55 needs only the first. Were
  // top_p applied to all, it would need both.
  SamplerOptions o = plain();
  o.top_k = 2;
  o.top_p = 0.55;
  EXPECT_EQ(support(o, {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)}),
            (std::set<Token>{0}));
}

TEST(Sampler, BiasAndPenalties) {
  SamplerOptions o;
  o.temperature = 0;
  o.logit_bias = {{2, 5.0f}};
  EXPECT_EQ(pick(o, {1, 2, 0}), 2);
  o = SamplerOptions{};
  o.temperature = 0;
  o.repetition_penalty = 2;
  EXPECT_EQ(pick(o, {3, 2, 1}, {0}), 1) << "3 / 2 is less than 2";
  EXPECT_EQ(pick(o, {-1, -1.5f, -3}, {0}), 1) << "-1 * 2 is less than -1.5";
  EXPECT_EQ(pick(o, {3, 2, 1}, {0, 0, 0}), 1) << "once, however often it occurs";
  o.penalty_window = 1;
  EXPECT_EQ(pick(o, {3, 2, 1}, {0, 2}), 0) << "out of the window";
  o.penalty_window = 0;
  EXPECT_EQ(pick(o, {3, 2, 1}, {0}), 0);
  o.penalty_window = -1;
  EXPECT_EQ(pick(o, {3, 2, 1}, std::vector<Token>(100, 0)), 1);
  o = SamplerOptions{};
  o.temperature = 0;
  o.frequency_penalty = 0.6;
  EXPECT_EQ(pick(o, {3, 2, 1}, {0}), 0);
  EXPECT_EQ(pick(o, {3, 2, 1}, {0, 0}), 1);
  o.frequency_penalty = 0;
  o.presence_penalty = 0.6;
  EXPECT_EQ(pick(o, {3, 2, 1}, {0, 0}), 0) << "once, however often it occurs";
  o.presence_penalty = 1.5;
  EXPECT_EQ(pick(o, {3, 2, 1}, {0}), 1);
  o.logit_bias = {{0, 3.0e38f}};
  o.repetition_penalty = 1e300;
  EXPECT_EQ(pick(o, {3, 2, 1}, {1}), 0) << "extremes stay finite";
}

TEST(Sampler, TheDrawDependsOnSeedAndPosition) {
  const SamplerOptions o = plain();
  const std::vector<float> logits(1000, 0.0f);
  SamplerOptions other = o;
  other.seed = 1;
  int moved_by_seed = 0, moved_by_position = 0;
  for (size_t i = 0; i < 100; ++i) {
    const std::vector<Token> timeline(i, 3), same_length(i, 4), longer(i + 1, 3);
    EXPECT_EQ(pick(o, logits, timeline), pick(o, logits, same_length));
    moved_by_seed += pick(o, logits, timeline) != pick(other, logits, timeline);
    moved_by_position += pick(o, logits, timeline) != pick(o, logits, longer);
  }
  EXPECT_GT(moved_by_seed, 95);
  EXPECT_GT(moved_by_position, 95);
}

// Pearson's statistic over 8 tokens (7 degrees of freedom): 24.3 is exceeded by chance once in a
// thousand seeds, and the seed is fixed.
TEST(Sampler, DrawsFollowTheDistribution) {
  SamplerOptions o = plain();
  o.temperature = 0.7;
  o.seed = 11;
  const std::vector<float> logits = {0, 0.5f, 1, -1, 0.25f, -0.5f, 0.75f, -2};
  constexpr int kDraws = 20000;
  double sum = 0;
  for (const float x : logits) sum += std::exp(x / 0.7);
  for (const int top_k : {0, 8}) {
    o.top_k = top_k;
    auto counts = frequencies(o, logits, kDraws);
    double statistic = 0;
    for (Token id = 0; id < 8; ++id) {
      const double expected = kDraws * std::exp(logits[static_cast<size_t>(id)] / 0.7) / sum;
      statistic += (counts[id] - expected) * (counts[id] - expected) / expected;
    }
    EXPECT_TRUE(statistic < 24.3) << statistic;
  }
}

TEST(Sampler, RefusesOptionsThatCannotBe) {
  const auto refused = [](auto&& change, const char* name) {
    SamplerOptions o;
    change(o);
    try {
      check_sampler_options(o, 10);
      ADD_FAILURE() << name << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      EXPECT_EQ(std::string(e.what()).find(name), 0u) << e.what();
    }
  };
  const double nan = std::nan("");
  check_sampler_options({}, 10);
  for (const double bad : {-0.1, nan, HUGE_VAL}) {
    refused([&](auto& o) { o.temperature = bad; }, "temp");
    refused([&](auto& o) { o.repetition_penalty = bad; }, "repeat-penalty");
  }
  refused([](auto& o) { o.repetition_penalty = 0; }, "repeat-penalty");
  refused([](auto& o) { o.top_k = -1; }, "top-k");
  for (const double bad : {0.0, -1.0, 1.1, nan}) refused([&](auto& o) { o.top_p = bad; }, "top-p");
  for (const double bad : {1.0, -0.1, nan}) refused([&](auto& o) { o.min_p = bad; }, "min-p");
  refused([&](auto& o) { o.frequency_penalty = nan; }, "frequency-penalty");
  refused([&](auto& o) { o.presence_penalty = nan; }, "presence-penalty");
  refused([](auto& o) { o.penalty_window = -2; }, "repeat-last-n");
  for (const Token bad : {-1, 10}) refused([&](auto& o) { o.logit_bias[bad] = 1; }, "logit-bias");
  refused([](auto& o) { o.logit_bias[1] = std::nanf(""); }, "logit-bias");
}

TEST(Sampler, SaysHowSureItIs) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.125f),
                                     std::log(0.125f)};
  SamplerOptions o = plain();
  for (const double temperature : {0.0, 1.0}) {
    o.temperature = temperature;
    const Prediction p = predict(o, logits, {}, 3, 4);
    EXPECT_NEAR(p.entropy, 1.75 * std::log(2), 1e-6);
    EXPECT_NEAR(p.confidence, 0.5, 1e-6);
    EXPECT_NEAR(p.margin, 0.25, 1e-6);
  }
  o.top_k = 2;  // 2/3 and 1/3 are left to draw from
  const Prediction two = predict(o, logits, {}, 3, 4);
  EXPECT_NEAR(two.entropy, std::log(3) - 2 * std::log(2) / 3, 1e-6);
  EXPECT_NEAR(two.margin, 1.0 / 3, 1e-6);
  o.top_k = 1;
  const Prediction one = predict(o, logits, {}, 3, 4);
  EXPECT_EQ(one.entropy, 0);
  EXPECT_EQ(one.confidence, 1);
  const std::vector<float> equal(5, 2.0f);  // the largest twice
  EXPECT_NEAR(predict(plain(), equal, {}, 0, 5).margin, 0, 1e-7);
  o = plain();
  const std::vector<Token> timeline(7, 1);  // the draw is sample()'s for that place
  for (uint64_t seed = 0; seed < 20; ++seed) {
    o.seed = seed;
    EXPECT_EQ(predict(o, logits, timeline, 7, 4).token, sample(o, logits, timeline, 4));
  }
}

// Printed for the reader; machines differ too much to bound it tightly.
TEST(Sampler, CostOnALargeVocabulary) {
  const CounterRng rng(5);
  std::vector<float> logits(262144);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 3 * rng.normal(i);
  SamplerOptions greedy, wide = plain();
  greedy.temperature = 0;
  wide.top_p = 0.95;
  for (const auto& [name, options] : {std::pair{"greedy", greedy},
                                      {"top_k 64, top_p 0.95", SamplerOptions{}},
                                      {"all, top_p 0.95", wide}}) {
    const auto start = std::chrono::steady_clock::now();
    constexpr int kTimes = 20;
    for (int i = 0; i < kTimes; ++i)
      pick(options, logits, std::vector<Token>(static_cast<size_t>(i), 7));
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    std::printf("%s: %.2f ms\n", name, spent.count() / kTimes);
    EXPECT_LT(spent.count() / kTimes, 1000);
  }
}

}  // namespace
}  // namespace lapidary
