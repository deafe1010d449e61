#include "isolate/plan.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "small_example.h"

namespace lapidary {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(kTiny);
  return loaded;
}

PlannedCondition planned(Condition condition, PlanOptions options = {}) {
  options.conditions = {condition};
  return make_plan(small_example(), options, tokenizer()).conditions.at(0);
}

// With "<name of the output>" for each message.
std::string text(const PlannedCondition& condition, size_t cache) {
  std::vector<std::string> made;
  for (const PlannedOutput& output : condition.outputs) made.push_back("<" + output.name + ">");
  return context_text(condition, condition.caches.at(cache),
                      [&](size_t i) { return std::string_view(made[i]); });
}

constexpr const char* kAll =
    "The ship has two masts.\n\nBake the bread for an hour, until it is brown.\n\n"
    "It sails on Monday.\n\nThe oven is hot.\n\nPlan the voyage.";

TEST(Plan, SequentialIsAllTurns) {
  const PlannedCondition plan = planned(Condition::kSequential);
  ASSERT_EQ(plan.caches.size(), 1u);
  EXPECT_EQ(text(plan, 0), kAll);
  ASSERT_EQ(plan.outputs.size(), 4u);
  EXPECT_EQ(plan.outputs[0].prompt, "\n\nGenerate output A based on the provided context:");
  EXPECT_EQ(plan.outputs[2].prompt, "\n\nGenerate output C that integrates outputs A and B:");
  EXPECT_EQ(plan.outputs[3].name, "A.q1");
  EXPECT_EQ(plan.outputs[3].prompt, "\n\nHow many masts?\nAnswer:");
  EXPECT_EQ(plan.outputs[3].expected, "Two.");
}

TEST(Plan, PromptedNamesTheTopics) {
  EXPECT_EQ(
      text(planned(Condition::kPrompted), 0),
      std::string("IMPORTANT: Keep the following topics separate: ships and bread.\n\n") + kAll);
  EXPECT_EQ(text(planned(Condition::kPrompted, {.topics = "x and y"}), 0),
            std::string("IMPORTANT: Keep the following topics separate: x and y.\n\n") + kAll);
}

TEST(Plan, TurnBasedMarksAllTurnsEmptyOnesToo) {
  EXPECT_EQ(text(planned(Condition::kTurnBased), 0),
            "[Turn 1]\nThe ship has two masts.\n\n"
            "[Turn 2]\nBake the bread for an hour, until it is brown.\n\n"
            "[Turn 3]\nIt sails on Monday.\n\n[Turn 4]\nThe oven is hot.\n\n"
            "[Turn 5]\nPlan the voyage.\n\n[Turn 6]\n");
}

TEST(Plan, SemanticIsACacheForEachAndMessages) {
  for (const Condition condition : {Condition::kSemantic, Condition::kMask}) {
    const PlannedCondition plan = planned(condition);
    ASSERT_EQ(plan.caches.size(), 3u);
    EXPECT_EQ(text(plan, 0), "The ship has two masts.\n\nIt sails on Monday.");
    EXPECT_EQ(text(plan, 1), "Bake the bread for an hour, until it is brown.\n\nThe oven is hot.");
    EXPECT_EQ(text(plan, 2), "\nOutput A: <A>\n\nOutput B: <B>\n\nPlan the voyage.");
    EXPECT_EQ(plan.outputs[3].cache, 0u);
  }
}

TEST(Plan, MessageOnlyIsOneCacheAndMessages) {
  const PlannedCondition plan = planned(Condition::kMessageOnly);
  ASSERT_EQ(plan.caches.size(), 2u);
  EXPECT_EQ(text(plan, 0), kAll);
  EXPECT_EQ(text(plan, 1), std::string("\nOutput A: <A>\n\nOutput B: <B>\n\n") + kAll);
  EXPECT_EQ(plan.outputs[1].cache, 0u);
  EXPECT_EQ(plan.outputs[2].cache, 1u);
}

TEST(Plan, RandomClustersDealTheSameTurns) {
  bool dealt = false;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const PlannedCondition plan = planned(Condition::kRandomClusters, {.seed = seed});
    std::vector<size_t> turns;
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_EQ(plan.caches[i].pieces.size(), 2u);
      EXPECT_LT(plan.caches[i].pieces[0].turn, plan.caches[i].pieces[1].turn);
      for (const ContextPiece& piece : plan.caches[i].pieces) turns.push_back(piece.turn);
    }
    dealt = dealt || turns != std::vector<size_t>{0, 2, 1, 3};
    std::ranges::sort(turns);
    EXPECT_EQ(turns, (std::vector<size_t>{0, 1, 2, 3}));
    EXPECT_EQ(plan.caches[2].pieces.at(0).turn, 4u);
  }
  EXPECT_TRUE(dealt);
}

TEST(Plan, LengthMatchedIsAsLongAsACluster) {
  const std::filesystem::path file =
      std::filesystem::path(LAPIDARY_SOURCE_DIR) / "data/isolation/food_001_bakery.json";
  const PlanOptions options{.conditions = {Condition::kSemantic, Condition::kLengthMatched}};
  const IsolationPlan plan = make_plan(read_example(file), options, tokenizer());
  const auto count = [&](size_t condition, size_t cache) {
    const PlannedCondition& c = plan.conditions[condition];
    return count_tokens(tokenizer(), c, c.caches[cache], false);
  };
  const int64_t mean = (count(0, 0) + count(0, 1)) / 2, cut = count(1, 0);
  EXPECT_LE(cut, mean);
  EXPECT_GT(cut, mean * 9 / 10);
}

TEST(Plan, TopicalPromptsNameTheFocus) {
  const PlannedCondition plan = planned(Condition::kSemantic, {.topical = true});
  EXPECT_EQ(plan.outputs[0].prompt, "\n\nGenerate a report on the ship:");
  EXPECT_EQ(plan.outputs[2].prompt,
            "\n\nGenerate a report on the voyage that integrates the reports on the ship and the "
            "bread:");
}

TEST(Plan, WarnsOfTurnsWithoutText) {
  PlanOptions options;
  EXPECT_EQ(make_plan(small_example(), options, tokenizer()).warnings,
            (std::vector<std::string>{
                "small: turn 6 has no instruction or content, only query: skipped"}));
  options.text_fields.push_back("query");
  const IsolationPlan plan = make_plan(small_example(), options, tokenizer());
  EXPECT_TRUE(plan.warnings.empty());
  EXPECT_EQ(text(plan.conditions[0], 0), std::string(kAll) + "\n\nAnything else?");
  options.text_fields = {"query"};
  EXPECT_THROW(make_plan(small_example(), options, tokenizer()), Error);
}

TEST(Plan, SaysByHowMuchAContextIsTooLong) {
  const PlanOptions options{.conditions = {Condition::kSequential}, .max_tokens = 100};
  const IsolationPlan plan = make_plan(small_example(), options, tokenizer());
  const PlannedCondition& sequential = plan.conditions[0];
  int64_t longest = 0;
  for (const PlannedOutput& output : sequential.outputs)
    longest = std::max(longest, std::ssize(prompt_tokens(tokenizer(), output.prompt, false)));
  const int64_t needed =
      count_tokens(tokenizer(), sequential, sequential.caches[0], false) + longest + 100;
  EXPECT_NO_THROW(check_plan(plan, options, tokenizer(), needed));
  try {
    check_plan(plan, options, tokenizer(), needed - 3);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("3 more than the " + std::to_string(needed - 3)),
              std::string::npos)
        << e.what();
  }
}

TEST(Plan, ChatFormatIsAroundContextAndPrompt) {
  std::vector<Token> ids = context_tokens(tokenizer(), "Hello", true);
  for (const Token id : prompt_tokens(tokenizer(), " there", true)) ids.push_back(id);
  EXPECT_EQ(tokenizer().decode(ids, true),
            "<bos><start_of_turn>user\nHello there<end_of_turn>\n<start_of_turn>model\n");
}

}  // namespace
}  // namespace lapidary
