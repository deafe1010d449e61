// Set Block Decoding beside a slow one that keeps nothing from pass to pass.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/decoding.h"

#include "generate/look.h"
#include "generate/token_runs.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

constexpr Token kMask = 4;
constexpr int kUsable = 290;  // of 300 tokens

double doubt_of(const Prediction& p, RevealOrder order) {
  return order == RevealOrder::kEntropy      ? p.entropy
         : order == RevealOrder::kConfidence ? -p.confidence
                                             : -p.margin;
}

struct Guess {
  int64_t place;
  Prediction prediction;
};

// What one pass says of the masked places of `block`, surest first, as many as gamma allows: the
// whole timeline is read anew.
std::vector<Guess> slow_pass(const std::shared_ptr<const Engine>& engine,
                             const std::vector<Token>& before, const std::vector<Token>& block,
                             const SetBlockOptions& options, SamplerOptions sampling) {
  Session session(engine, 1000);
  const Rows rows = look(session, before, block);
  sampling.logit_bias[kMask] = -1e30f;
  std::vector<Token> known = before;
  std::ranges::copy_if(block, std::back_inserter(known), [](Token t) { return t != kMask; });
  const bool first = known.size() == before.size();
  std::vector<Guess> guesses;
  for (const auto& [place, logits] : rows) {
    if (block[static_cast<size_t>(place)] != kMask) continue;
    const auto position = std::ssize(before) + place;
    guesses.push_back({place, predict(sampling, first && place == 0 ? session.logits() : logits,
                                      known, position, kUsable)});
  }
  std::ranges::stable_sort(guesses, {},
                           [&](const Guess& g) { return doubt_of(g.prediction, options.order); });
  double sum = 0, largest = 0;
  for (size_t i = 0; i < guesses.size(); ++i) {
    sum += guesses[i].prediction.entropy;
    largest = std::max(largest, guesses[i].prediction.entropy);
    if (i > 0 && sum - largest > options.gamma) guesses.resize(i);
  }
  return guesses;
}

class BlockDecoding : public ::testing::Test {
 protected:
  std::shared_ptr<const Engine> engine =
      Engine::load(fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden/gemma3-v5", {.threads = 1});
};

// Penalties and draws depend on what is known and where; windows are 20, so that caches turn over.
TEST_F(BlockDecoding, EqualsReadingAllAnewInEachPass) {
  for (const RevealOrder order :
       {RevealOrder::kEntropy, RevealOrder::kConfidence, RevealOrder::kMargin})
    for (const double temperature : {0.0, 0.7}) {
      const SetBlockOptions options{.block = 9, .gamma = 8, .order = order, .mask = kMask};
      const SamplerOptions sampling{.temperature = temperature,
                                    .top_k = 40,
                                    .repetition_penalty = 1.5,
                                    .frequency_penalty = 0.4,
                                    .penalty_window = 12,
                                    .logit_bias = {{kMask, 50.0f}, {kUsable, 50.0f}},
                                    .seed = 11};
      std::vector<Token> before = random_tokens(23, kUsable);
      Session session(engine, 1000);
      session.append(before);
      BlockDecoder decoder(session, options, sampling, kUsable);
      int64_t passes = 0, together = 0;
      for (const int64_t size : {9, 4, 20, 9, 1}) {  // no block has more than 9
        decoder.begin(size);
        std::vector<Token> block(static_cast<size_t>(std::min<int64_t>(size, 9)), kMask);
        EXPECT_EQ(decoder.start(), std::ssize(before));
        while (!decoder.done()) {
          const auto wanted = slow_pass(engine, before, block, options, sampling);
          const bool first = std::ranges::count(block, kMask) == std::ssize(block);
          const StepItem pass = decoder.next_pass();
          // The first place is known from before the block.
          ASSERT_EQ(std::ssize(pass.block_rows),
                    std::ranges::count(block, kMask) - (first ? 1 : 0));
          for (const int64_t row : pass.block_rows)
            EXPECT_EQ(block[static_cast<size_t>(row)], kMask);
          engine->step({&pass, 1});
          const auto fresh = decoder.reveal();
          ++passes;
          ASSERT_EQ(fresh.size(), wanted.size());
          together += fresh.size() > 1;
          for (size_t i = 0; i < fresh.size(); ++i) {
            const auto& [place, prediction] = wanted[i];
            EXPECT_EQ(fresh[i].position, std::ssize(before) + place);
            EXPECT_EQ(fresh[i].token, prediction.token);
            EXPECT_EQ(fresh[i].entropy, prediction.entropy);
            EXPECT_EQ(fresh[i].pass, passes);
            EXPECT_NE(fresh[i].token, kMask);
            EXPECT_LT(fresh[i].token, kUsable);
            block[static_cast<size_t>(place)] = prediction.token;
          }
          ASSERT_TRUE(std::ranges::equal(decoder.block(), block));
          EXPECT_EQ(decoder.known(), std::ranges::find(block, kMask) - block.begin());
          EXPECT_EQ(session.length(), std::ssize(before));
        }
        EXPECT_EQ(decoder.unread(), std::ssize(block));
        before.insert(before.end(), block.begin(), block.end());
      }
      EXPECT_EQ(decoder.passes(), passes);
      EXPECT_GT(together, 0);
    }
}

// Of two places the surer one is left over once the larger entropy is left out: as much as gamma
// may be for both to be decided, and not a bit less.
TEST_F(BlockDecoding, GammaIsReached) {
  const auto first_pass = [&](double gamma) {
    Session session(engine, 100);
    session.append(random_tokens(10, kUsable));
    BlockDecoder decoder(session, {.block = 2, .gamma = gamma, .mask = kMask}, {.temperature = 0},
                         kUsable);
    decoder.begin(2);
    const StepItem pass = decoder.next_pass();
    engine->step({&pass, 1});
    const auto fresh = decoder.reveal();
    return std::vector<Reveal>(fresh.begin(), fresh.end());
  };
  const std::vector<Reveal> both = first_pass(1e9);
  ASSERT_EQ(both.size(), 2u);
  const double surer = both.front().entropy;
  ASSERT_LT(surer, both.back().entropy);
  EXPECT_EQ(first_pass(surer).size(), 2u);
  EXPECT_EQ(first_pass(std::nextafter(surer, 0)).size(), 1u);
  EXPECT_EQ(first_pass(0).size(), 1u);  // at least one
}

}  // namespace
}  // namespace lapidary
