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

// A session that checks guesses by hand, so that what holds is the test's choice.
class BlockDrafting : public ModelDrafting {
 protected:
  void SetUp() override { session.append(Tokens(timeline)); }
  Tokens proposed(int64_t most = 100) { return copied(drafter.propose(timeline, most)); }
  // Reads the timeline's last token and `guesses`, and what the drafter adds.
  void pass(const Tokens& guesses, int64_t left = 100) {
    Tokens given = {timeline.back()};
    given.insert(given.end(), guesses.begin(), guesses.end());
    StepItem item{.session = &session, .tokens = given};
    drafter.join(item, left);
    joined = std::ssize(item.block);
    engine->step({&item, 1});
  }
  // The likeliest tokens of a block of masks after `before`, but for its first place.
  Tokens said(const Tokens& before, int64_t size) const {
    Session fresh(engine, 200);
    const Tokens masks(static_cast<size_t>(size), kMask);
    std::vector<int64_t> rows;
    for (int64_t i = 1; i < size; ++i) rows.push_back(i);
    Tokens likeliest;
    StepItem item{.session = &fresh, .tokens = before, .block = masks, .block_rows = rows};
    item.on_block = [&](int64_t, std::span<const float> logits) {
      std::vector<float> others(logits.begin(), logits.end());
      others[kMask] = -1e30f;
      likeliest.push_back(static_cast<Token>(std::ranges::max_element(others) - others.begin()));
    };
    engine->step({&item, 1});
    return likeliest;
  }
  void go_on(std::initializer_list<Token> tokens) { timeline.insert(timeline.end(), tokens); }

  static constexpr Token kMask = 4;
  Tokens timeline = {2, 17, 5, 90, 41};
  Session session{engine, 200};
  BlockDrafter drafter{
      session, {.block = 5, .mask = kMask}, {.temperature = 0}, engine->config().vocab_size};
  int64_t joined = 0;
};

TEST_F(BlockDrafting, GuessesWhatTheLastPassSaidOfItsBlock) {
  go_on({33});
  EXPECT_EQ(proposed(), Tokens());
  pass({});
  EXPECT_EQ(joined, 5);
  const Tokens first = said(timeline, 5);
  go_on({60});  // whatever comes in the block's first place
  EXPECT_EQ(proposed(), first);
  EXPECT_EQ(proposed(2), Tokens(first.begin(), first.begin() + 2));
}

TEST_F(BlockDrafting, AfterAWrongGuessKeepsThoseBehindItAndDropsTheBlock) {
  go_on({33});
  proposed();
  pass({});
  go_on({60});
  const Tokens guesses = proposed();
  ASSERT_EQ(guesses.size(), 4u);
  pass(guesses);
  // The first holds, the second does not.
  go_on({guesses[0], (guesses[1] + 1) % 300});
  session.trim(std::ssize(timeline) - 1);
  EXPECT_EQ(proposed(), Tokens(guesses.begin() + 2, guesses.end()));
  pass({guesses[2], guesses[3]});
  EXPECT_EQ(joined, 4);  // room for twice what held
  Tokens whole = timeline;
  whole.insert(whole.end(), guesses.begin() + 2, guesses.end());
  go_on({guesses[2], guesses[3], 70});
  EXPECT_EQ(proposed(), said(whole, 4));
}

TEST_F(BlockDrafting, BlocksShrinkWhereGuessesAreWrongAndGrowAgain) {
  go_on({33});
  std::vector<int64_t> sizes;
  for (int round = 0; round < 9; ++round) {
    const Tokens guesses = proposed();
    pass(guesses);
    sizes.push_back(joined);
    const bool right = round > 4;
    if (right) timeline.insert(timeline.end(), guesses.begin(), guesses.end());
    go_on({right || guesses.empty() ? 60 : (guesses[0] + 1) % 300});
    session.trim(std::ssize(timeline) - 1);
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{5, 5, 2, 2, 2, 2, 2, 4, 5}));
}

TEST_F(BlockDrafting, ReadsNoMoreThanThereIsRoomFor) {
  go_on({33});
  proposed();
  pass({}, 3);
  EXPECT_EQ(joined, 3);
  go_on({60});
  const Tokens guesses = proposed();
  ASSERT_EQ(guesses.size(), 2u);
  pass(guesses, 1);  // a block of one would say what the pass says anyway
  EXPECT_EQ(joined, 0);
  go_on({guesses[0], guesses[1], 61});
  EXPECT_EQ(proposed(), Tokens());
  while (std::ssize(timeline) < session.context() - 2) go_on({17});
  session.append(
      std::span(timeline).subspan(static_cast<size_t>(session.length()),
                                  timeline.size() - 1 - static_cast<size_t>(session.length())));
  pass({});
  EXPECT_EQ(joined, 2);
}

}  // namespace
}  // namespace lapidary
