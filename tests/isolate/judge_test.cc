// What is asked of a judge, how its answers are read, and the figures that come of them.
#include "isolate/judge.h"

#include <fstream>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/json.h"
#include "base/scratch_folder.h"
#include "isolate/measures.h"
#include "small_example.h"

namespace lapidary {
namespace {

using Verdict = JudgementRecord::Verdict;

TEST(ParseVerdict, TakesWhatModelsWrite) {
  const auto verdict = [](const std::string& answer) { return parse_verdict(answer)->first; };
  EXPECT_EQ(verdict(R"({"verdict": "1", "reason": "x"})"), Verdict::kFirst);
  EXPECT_EQ(verdict(R"({"verdict": 2})"), Verdict::kSecond);
  EXPECT_EQ(verdict("Sure!\n```json\n{\"verdict\": \"Tie\"}\n```\nAnything else?"), Verdict::kTie);
  EXPECT_EQ(verdict(R"({"verdict": "Answer 2"})"), Verdict::kSecond);
  EXPECT_EQ(verdict(R"({"reason": "it has a { and a \" in it", "verdict": "1"})"), Verdict::kFirst);
  EXPECT_EQ(verdict(R"({"verdict": "1", "reason": "has {\"verdict\"} in it"})"), Verdict::kFirst);
  // What was thought before does not count.
  EXPECT_EQ(verdict("<think>{\"verdict\": \"1\"}, or not?</think>{\"verdict\": \"2\"}"),
            Verdict::kSecond);
  EXPECT_EQ(parse_verdict(R"({"verdict": "tie", "reason": "both wrong"})")->second, "both wrong");
  EXPECT_EQ(parse_verdict(R"({"verdict": "tie", "reason": 3})")->second, "");
}

TEST(ParseVerdict, GuessesNothing) {
  for (const std::string answer :
       {"", "1", "Answer 1 is better.", "{", R"({"verdict": "3"})", R"({"verdict": ["1"]})",
        R"({"verdict": "1")", R"({"verdict": "1" or "2" or "tie"})", R"(["verdict", "1"])"})
    EXPECT_FALSE(parse_verdict(answer)) << answer;
  EXPECT_FALSE(parse_verdict(std::string(1'000'000, '{')));
}

TEST(JudgeMessages, HaveTheTaskAndBothAnswers) {
  const IsolationExample example = small_example();
  const PlannedOutput output{.name = "A", .prompt = "\n\nGenerate output A:", .expected = "Masts."};
  const auto messages = judge_messages(example, output, "first text", "second text");
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(
      messages[1].content,
      "Topic: the ship (sailing)\n\nTask:\nGenerate output A:\n\nReference answer:\nMasts.\n\n"
      "Answer 1:\n<<<\nfirst text\n>>>\n\nAnswer 2:\n<<<\nsecond text\n>>>\n\n"
      "Which answer is better?");
  const PlannedOutput open{.name = "A", .prompt = "Go."};
  EXPECT_EQ(judge_messages(example, open, "", "")[1].content.find("Reference"), std::string::npos);
}

// A folder of examples e0, e1, ... that have outputs A and the question A.q1 under two conditions.
class Judgements : public ::testing::Test {
 protected:
  Judgements() {
    for (int i = 0; i < 4; ++i) {
      IsolationExample example = small_example();
      example.id = "e" + std::to_string(i);
      IsolationPlan plan{.example = example.id};
      for (const Condition condition : {Condition::kSequential, Condition::kSemantic})
        plan.conditions.push_back({.condition = condition,
                                   .outputs = {{.name = "A", .prompt = "a"},
                                               {.name = "A.q1", .prompt = "q", .question = true}}});
      for (const PlannedCondition& condition : plan.conditions)
        for (const PlannedOutput& output : condition.outputs)
          folder.add(OutputRecord{.example = example.id,
                                  .condition = std::string(name_of(condition.condition)),
                                  .name = output.name,
                                  .tokens = {1}});
      examples.push_back(std::move(example));
      plans.push_back(std::move(plan));
    }
  }

  // `semantic_first` and `sequential_first`: what is said of each order.
  void say(int example, const std::string& output, Verdict semantic_first,
           Verdict sequential_first) {
    const std::string id = "e" + std::to_string(example);
    folder.add(JudgementRecord{"judge", id, output, "semantic", "sequential", semantic_first});
    folder.add(JudgementRecord{"judge", id, output, "sequential", "semantic", sequential_first});
  }

  JudgedPair pair() const {
    return judged_pair(examples, plans, folder, "judge", Condition::kSemantic,
                       Condition::kSequential, output_groups());
  }

  ScratchFolder scratch;
  IsolationFolder folder{scratch.path() / "run", {{"seed", 1}}};
  std::vector<IsolationExample> examples;
  std::vector<IsolationPlan> plans;
};

TEST_F(Judgements, CountWhatBothOrdersAgreeOn) {
  using enum Verdict;
  say(0, "A", kFirst, kSecond);  // semantic, both times
  say(0, "A.q1", kTie, kTie);
  say(1, "A", kFirst, kFirst);      // the first shown: a tie
  say(1, "A.q1", kSecond, kFirst);  // sequential, both times
  say(2, "A", kFirst, kTie);        // does not agree: a tie
  say(3, "A", kFirst, kInvalid);
  folder.add(JudgementRecord{"judge", "e2", "A.q1", "semantic", "sequential", kFirst});  // half
  const JudgedPair judged = pair();
  ASSERT_EQ(judged.figures.size(), 3u);
  const JudgeFigures& outputs = judged.figures[0];
  EXPECT_EQ(outputs.group, "outputs");
  EXPECT_EQ(outputs.examples, 3);
  EXPECT_EQ(outputs.wins, 1);
  EXPECT_EQ(outputs.ties, 2);
  EXPECT_EQ(outputs.losses, 0);
  EXPECT_EQ(outputs.invalid, 1);
  EXPECT_DOUBLE_EQ(*outputs.win_rate, (1 + 0.5 + 0.5) / 3);
  EXPECT_DOUBLE_EQ(*outputs.consistency, 1.0 / 3);
  EXPECT_DOUBLE_EQ(*outputs.first_share, 4.0 / 5);
  EXPECT_DOUBLE_EQ(*outputs.p, 1);
  const JudgeFigures& all = judged.figures[2];
  EXPECT_EQ(all.group, "all");
  EXPECT_EQ(all.wins, 1);
  EXPECT_EQ(all.losses, 1);
  // Examples count alike, whatever the number of their outputs: 3/4, 1/4, 1/2.
  EXPECT_DOUBLE_EQ(*all.win_rate, 0.5);
  // Seen from the other side.
  const JudgedPair other = judged_pair(examples, plans, folder, "judge", Condition::kSequential,
                                       Condition::kSemantic, output_groups());
  EXPECT_EQ(other.figures[0].losses, 1);
  EXPECT_DOUBLE_EQ(*other.figures[0].first_share, 4.0 / 5);
}

TEST_F(Judgements, OfInvalidOnesHaveNoRate) {
  say(0, "A", Verdict::kInvalid, Verdict::kInvalid);
  const JudgedPair judged = pair();
  ASSERT_EQ(judged.figures.size(), 1u);
  EXPECT_FALSE(judged.figures[0].win_rate || judged.figures[0].p || judged.figures[0].interval);
  EXPECT_FALSE(judged.outputs[0].consistent);
}

TEST_F(Judgements, AreReadBackFromTheFolder) {
  say(0, "A", Verdict::kFirst, Verdict::kSecond);
  const auto file = folder.path() / "judgements.jsonl";
  std::ofstream(file, std::ios::app) << R"({"model": "jud)";  // killed while writing
  IsolationFolder again(folder.path());
  EXPECT_EQ(again.judgements().size(), 2u);
  again.add(JudgementRecord{"judge", "e1", "A", "semantic", "sequential", Verdict::kTie, "why"});
  const IsolationFolder third(folder.path());
  EXPECT_EQ(third.judgements().size(), 3u);
  const auto found = third.judgements().find({"judge", "e1", "A", "semantic", "sequential"});
  ASSERT_NE(found, third.judgements().end());
  EXPECT_EQ(found->second.reason, "why");
  const std::vector<JudgedPair> pairs = judged_pairs(examples, plans, third);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].a, Condition::kSemantic);
  EXPECT_EQ(pairs[0].figures[0].wins, 1);
  for (const auto& [field, wrong] : {std::pair("verdict", "3"), std::pair("first", "nothing")}) {
    Json line = {{"model", "m"},         {"example", "e0"}, {"output", "A"}, {"first", "mask"},
                 {"second", "prompted"}, {"verdict", "1"},  {"reason", ""}};
    line[field] = wrong;
    std::ofstream(file) << line.dump() << "\n";
    EXPECT_THROW(IsolationFolder(folder.path()), Error) << field;
  }
}

TEST(ChatEndpoint, RefusesAddressesAndKeysThatCannotBe) {
  for (const std::string url : {"", "localhost:8080", "ftp://host", "http://user:word@host/v1",
                                "http://host/v1?key=1", "http://"})
    EXPECT_THROW(ChatEndpoint({.url = url}, {}), Error) << url;
  try {
    ChatEndpoint({.url = "http://host", .key = "a\nb-secret", .key_name = "KEY"}, {});
    ADD_FAILURE() << "a key with a line break";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_EQ(std::string(e.what()).find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace lapidary
