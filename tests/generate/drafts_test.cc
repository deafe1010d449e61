// What is guessed: which tokens do not change an answer, so that only guesses themselves show it.
#include "generate/drafts.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/generate.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<Token>;

Tokens copied(std::span<const Token> tokens) {
  return {tokens.begin(), tokens.end()};
}

TEST(NgramDrafter, GuessesWhatFollowedTheLongestRun) {
  const auto guesses = [](int64_t longest, const Tokens& timeline, int64_t most) {
    return copied(NgramDrafter(longest).propose(timeline, most));
  };
  // 1 2 3 was at the beginning, 2 3 after it, and 3 last.
  const Tokens timeline = {1, 2, 3, 9, 2, 3, 8, 3, 7, 1, 2, 3};
  EXPECT_EQ(guesses(1, timeline, 1), Tokens({7}));
  EXPECT_EQ(guesses(2, timeline, 1), Tokens({8}));
  EXPECT_EQ(guesses(3, timeline, 1), Tokens({9}));
  EXPECT_EQ(guesses(4, timeline, 1), Tokens({9}));
  EXPECT_EQ(guesses(3, timeline, 3), Tokens({9, 2, 3}));
  EXPECT_EQ(guesses(1, timeline, 40), Tokens({7, 1, 2, 3}));  // to the end
  // Of places with the same run the latest, which may reach into the last tokens themselves.
  EXPECT_EQ(guesses(3, {5, 1, 5, 2, 5}, 1), Tokens({2}));
  EXPECT_EQ(guesses(3, {4, 4, 4}, 8), Tokens({4}));
  EXPECT_EQ(guesses(3, {1, 2, 3}, 8), Tokens());
  EXPECT_EQ(guesses(3, {1}, 8), Tokens());
}

constexpr int kAll = std::numeric_limits<int>::max();

class ModelDrafting : public ::testing::Test {
 protected:
  std::shared_ptr<const Engine> engine =
      Engine::load(fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden/gemma3-v5", {.threads = 1});
};

TEST_F(ModelDrafting, GuessesGreedily) {
  const Tokens prompt = {2, 17, 5, 90, 41};
  Session session(engine, 200);
  const Generation made = generate(
      session, prompt, {.max_tokens = 6, .sampling = {.temperature = 0}, .ignore_eos = true});
  EXPECT_EQ(copied(ModelDrafter(engine, 200, kAll).propose(prompt, 6)), made.tokens);
}

// Whatever became of its guesses, it says what one says that never guessed: beyond its windows too.
TEST_F(ModelDrafting, KeepsToTheTimeline) {
  ModelDrafter drafter(engine, 200, kAll);
  Tokens timeline = {2, 17, 5, 90, 41};
  for (size_t round = 0; round < 40; ++round) {
    const size_t held = round % 4;
    Tokens guessed = copied(drafter.propose(timeline, 5));
    ASSERT_EQ(guessed, copied(ModelDrafter(engine, 200, kAll).propose(timeline, 5))) << round;
    timeline.insert(timeline.end(), guessed.begin(), guessed.begin() + static_cast<int64_t>(held));
    timeline.push_back((guessed[held] + 1 + static_cast<Token>(round)) % 300);
  }
  EXPECT_EQ(copied(drafter.propose(std::span(timeline).first(3), 5)),
            copied(ModelDrafter(engine, 200, kAll).propose(std::span(timeline).first(3), 5)));
}

// The model that checks may have fewer tokens than this one, or more.
TEST_F(ModelDrafting, GuessesWhatBothModelsHave) {
  const Tokens timeline = {2, 17, 5, 90, 41};
  const Tokens any = copied(ModelDrafter(engine, 200, kAll).propose(timeline, 6));
  const Token largest = std::ranges::max(any);
  for (const Token id : copied(ModelDrafter(engine, 200, largest).propose(timeline, 6)))
    EXPECT_LT(id, largest);
  const Tokens beyond = {2, 17, static_cast<Token>(engine->config().vocab_size)};
  EXPECT_TRUE(ModelDrafter(engine, 200, kAll).propose(beyond, 6).empty());
}

}  // namespace
}  // namespace lapidary
