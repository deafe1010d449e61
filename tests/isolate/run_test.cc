#include "isolate/run.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <stop_token>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "base/scratch_folder.h"
#include "isolate/description.h"
#include "small_example.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

class Runs : public ::testing::Test {
 protected:
  std::shared_ptr<const Engine> engine = Engine::load(kTiny, {});
  std::vector<IsolationExample> examples = {small_example()};
  ScratchFolder scratch;

  static IsolationRunOptions options(double temperature) {
    IsolationRunOptions o;
    o.plan.conditions.assign(kConditions.begin(), kConditions.end());
    o.plan.max_tokens = 12;
    o.sampling.temperature = temperature;
    return o;
  }

  IsolationFolder run(const IsolationRunOptions& o, const std::string& name,
                      const Watch& watch = {}) {
    std::vector<IsolationPlan> plans;
    for (const IsolationExample& example : examples)
      plans.push_back(make_plan(example, o.plan, engine->tokenizer()));
    {
      IsolationFolder folder(scratch.path() / name, run_description(*engine, examples, plans, o));
      run_isolation(engine, examples, plans, o, folder, watch);
    }
    return IsolationFolder(scratch.path() / name);
  }

  static std::map<RecordKey, std::vector<Token>> tokens(const IsolationFolder& folder) {
    std::map<RecordKey, std::vector<Token>> made;
    for (const auto& [key, record] : folder.outputs()) made[key] = record.tokens;
    return made;
  }
};

TEST_F(Runs, TogetherOrOneAtATimeMakeTheSameTokens) {
  IsolationRunOptions o = options(0);
  const IsolationFolder together = run(o, "together");
  EXPECT_EQ(together.outputs().size(), 8 * 4u);
  o.one_at_a_time = true;
  const IsolationFolder alone = run(o, "alone");
  EXPECT_EQ(tokens(alone), tokens(together));
  // The original procedure reads a context for each output.
  const RecordKey all = {"small", "sequential", "all"};
  EXPECT_EQ(together.contexts().at(all).prefilled, together.contexts().at(all).tokens);
  EXPECT_EQ(alone.contexts().at(all).prefilled, 4 * together.contexts().at(all).tokens);
}

TEST_F(Runs, RoomAndParallelismChangeNothing) {
  IsolationRunOptions o = options(0.7);
  const auto expected = tokens(run(o, "wide"));
  o.parallel = 3;
  EXPECT_EQ(tokens(run(o, "narrow")), expected);
  o.parallel = 16;
  o.max_memory = 1;
  EXPECT_EQ(tokens(run(o, "little")), expected);
}

TEST_F(Runs, AnInterruptedRunGoesOn) {
  const IsolationRunOptions o = options(0.7);
  const auto expected = tokens(run(o, "whole"));
  std::stop_source stop;
  const Watch watch{[&](int64_t done, int64_t) {
                      if (done >= 5) stop.request_stop();
                    },
                    stop.get_token()};
  EXPECT_THROW(run(o, "stopped", watch), Error);
  const fs::path lines = scratch.path() / "stopped/outputs.jsonl";
  std::ofstream(lines, std::ios::app) << "{\"example\": \"sma";  // killed while it wrote
  const IsolationFolder before(scratch.path() / "stopped");
  EXPECT_GE(before.outputs().size(), 5u);
  EXPECT_LT(before.outputs().size(), expected.size());
  EXPECT_EQ(tokens(run(o, "stopped")), expected);
}

TEST_F(Runs, ContextsThatWereKeptAreNotReadAgain) {
  IsolationRunOptions o = options(0.7);
  const auto expected = tokens(run(o, "without"));
  EXPECT_FALSE(fs::exists(scratch.path() / "without/contexts"));
  o.keep_contexts = true;
  const IsolationFolder kept = run(o, "kept");
  const fs::path files = kept.path() / "contexts", lines = kept.path() / "outputs.jsonl";
  EXPECT_EQ(tokens(kept), expected);
  fs::remove(lines);
  const IsolationFolder again = run(o, "kept");
  EXPECT_EQ(tokens(again), expected);
  for (const auto& [key, context] : again.contexts()) {
    const bool mask = std::get<1>(key) == "mask";
    const ContextRecord& before = kept.contexts().at(key);
    EXPECT_EQ(context.prefilled, mask ? 2 * before.prefilled : before.prefilled);
    EXPECT_EQ(context.restored, mask ? 0 : before.restored + before.tokens);
  }
  EXPECT_EQ(again.costs().at("semantic").reused,
            kept.costs().at("semantic").reused + kept.costs().at("semantic").cached);
  // What is not the context's is said.
  std::vector<fs::path> list;
  for (const auto& file : fs::directory_iterator(files)) list.push_back(file.path());
  for (const fs::path& file : list)
    if (file != list[0]) fs::copy_file(list[0], file, fs::copy_options::overwrite_existing);
  fs::remove(lines);
  EXPECT_THROW(run(o, "kept"), Error);
  for (const fs::path& file : list) fs::resize_file(file, fs::file_size(file) / 2);
  EXPECT_THROW(run(o, "kept"), Error);
}

// A text may end within a character; what hears it must not depend on whether it was read again.
TEST_F(Runs, AnOutputIsWhatItsLineSays) {
  const nlohmann::ordered_json about = {{"format", 1}};
  IsolationFolder folder(scratch.path() / "run", about);
  folder.add(OutputRecord{
      .example = "e", .condition = "c", .name = "n", .tokens = {9}, .text = "caf\xc3"});
  const RecordKey key = {"e", "c", "n"};
  EXPECT_EQ(folder.find(key)->text, "caf\ufffd");
  EXPECT_EQ(IsolationFolder(scratch.path() / "run").find(key)->text, folder.find(key)->text);
}

TEST_F(Runs, OneRunAtATimeWritesToAFolder) {
  const fs::path path = scratch.path() / "run";
  const nlohmann::ordered_json about = {{"format", 1}};
  {
    const IsolationFolder folder(path, about);
    EXPECT_THROW(IsolationFolder(path, about), Error);
    EXPECT_NO_THROW(IsolationFolder{path});  // reads
  }
  EXPECT_NO_THROW(IsolationFolder(path, about));
}

TEST_F(Runs, AnotherModelOrOtherOptionsAreRefused) {
  IsolationRunOptions o = options(0);
  o.plan.conditions = {Condition::kSemantic};
  run(o, "run");
  o.plan.max_tokens = 13;
  try {
    run(o, "run");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("max_tokens: 12 then, 13 now"), std::string::npos)
        << e.what();
  }
  o.plan.max_tokens = 12;
  engine =
      Engine::load(fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny", {.compute = Compute::kExact});
  EXPECT_THROW(run(o, "run"), Error);
  fs::create_directory(scratch.path() / "other");
  std::ofstream(scratch.path() / "other/file") << "x";
  EXPECT_THROW(run(o, "other"), Error);
}

// Ids that somebody put into the folder are seen before they index anything.
TEST_F(Runs, EditedIdsAreRefused) {
  IsolationRunOptions o = options(0);
  o.plan.conditions = {Condition::kSemantic};
  const fs::path file = run(o, "run").path() / "outputs.jsonl";
  std::ifstream in(file);
  std::string first;
  std::getline(in, first);
  const size_t begin = first.find("\"tokens\":["), end = first.find(']', begin);
  ASSERT_NE(begin, std::string::npos);
  for (const auto& [ids, words] : {std::pair("", "line 1"), std::pair("5,-1", "found -1"),
                                   std::pair("7777777777", "found 7777777777"),
                                   std::pair("5,4096", "output A: token id 4096 is not in")}) {
    std::ofstream(file) << first.substr(0, begin) + "\"tokens\":[" + ids + first.substr(end)
                        << "\n";
    try {
      run(o, "run");
      FAIL() << ids;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  }
}

// Nearly all pieces are as likely: what is read of such texts has other tokens, and more.
TEST_F(Runs, MessagesMayComeToMoreTokensThanWereMade) {
  IsolationRunOptions o = options(50);
  o.plan.conditions = {Condition::kSemantic};
  o.plan.questions = false;
  o.ignore_eos = true;
  const int64_t positions = engine->config().max_position_embeddings;
  // As many tokens as fit if a message had as many as its output.
  const PlannedCondition plan = make_plan(examples[0], o.plan, engine->tokenizer()).conditions[0];
  const int64_t prompt =
      std::ssize(prompt_tokens(engine->tokenizer(), plan.outputs[2].prompt, false));
  const int64_t alone = count_tokens(engine->tokenizer(), plan, plan.caches[2], false);
  o.plan.max_tokens = (positions - alone - prompt) / 3;
  const IsolationFolder folder = run(o, "run");
  const OutputRecord& synthesis = *folder.find({"small", "semantic", "C"});
  EXPECT_LT(std::ssize(synthesis.tokens), o.plan.max_tokens);
  EXPECT_EQ(folder.contexts().at({"small", "semantic", "cluster_3"}).tokens + prompt +
                std::ssize(synthesis.tokens),
            positions);
}

TEST_F(Runs, MessagesCarryWhatWasMade) {
  IsolationRunOptions o = options(0);
  o.plan.conditions = {Condition::kSemantic};
  const IsolationFolder folder = run(o, "run");
  const auto text = [&](const char* name) {
    return folder.find({"small", "semantic", name})->text;
  };
  const std::string synthesis =
      "\nOutput A: " + text("A") + "\n\nOutput B: " + text("B") + "\n\nPlan the voyage.";
  EXPECT_EQ(folder.contexts().at({"small", "semantic", "cluster_3"}).tokens,
            std::ssize(context_tokens(engine->tokenizer(), synthesis, false)));
}

}  // namespace
}  // namespace lapidary
