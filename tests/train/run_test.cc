// What a run refuses, and what its folder holds.
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/train.h"

#include "base/json.h"
#include "io/folder_lock.h"
#include "report/report.h"
#include "train/run_report.h"
#include "train/trainer_case.h"

namespace lapidary {
namespace {

class TrainRefusalTest : public TrainerTest {};

TEST_P(TrainRefusalTest, AResumeWithOtherOptionsNamesThem) {
  TrainOptions o = options("run");
  o.iterations = 1;
  train(o);
  o.resume = true;
  o.learning_rate = 5e-3;
  o.rank = 2;
  try {
    train(o);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("learning_rate: 0.002 then, 0.005 now"),
              std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find("rank: 4 then, 2 now"), std::string::npos);
  }
}

TEST_P(TrainRefusalTest, ARunIsNotWrittenOver) {
  TrainOptions o = options("run");
  o.iterations = 1;
  train(o);
  EXPECT_THROW(train(o), Error);
}

TEST_P(TrainRefusalTest, ALossThatIsNoNumberEndsTheRun) {
  TrainOptions o = options("run");
  o.method = TrainMethod::kFull;
  o.learning_rate = 1e18;
  o.max_grad_norm = 0;
  o.save_every = 1;
  try {
    train(o);
    FAIL() << "went on";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("step 2: the loss is"), std::string::npos)
        << error.what();
  }
  EXPECT_FALSE(state_of(o.run).empty());
}

TEST_P(TrainRefusalTest, ATargetThatFitsNothing) {
  TrainOptions o = options("run");
  o.targets = {"qproj"};
  EXPECT_THROW(train(o), Error);
  o.targets = {"layers.99.*"};
  EXPECT_THROW(train(o), Error);
}

TEST_P(TrainRefusalTest, NumbersThatNoRunHas) {
  const auto refused = [&](auto change) {
    TrainOptions o = options("run");
    change(o);
    const std::string error = error_of([&] { train(o); });
    EXPECT_FALSE(fs::exists(o.run)) << error;
    return error;
  };
  EXPECT_EQ(refused([](TrainOptions& o) { o.prune = 1.5; }), "--prune: 1.5 is not in [0, 1]");
  EXPECT_EQ(refused([](TrainOptions& o) { o.prune = NAN; }), "--prune: nan is not in [0, 1]");
  EXPECT_EQ(refused([](TrainOptions& o) { o.max_grad_norm = NAN; }),
            "--max-grad-norm: nan given, expected 0 or more");
  EXPECT_EQ(refused([](TrainOptions& o) { o.max_grad_norm = -1; }),
            "--max-grad-norm: -1 given, expected 0 or more");
  EXPECT_EQ(refused([](TrainOptions& o) { o.save_every = -1; }), "--save-every: -1 is negative");
  EXPECT_EQ(refused([](TrainOptions& o) { o.eval_every = -2; }), "--eval-every: -2 is negative");
  EXPECT_EQ(refused([](TrainOptions& o) { o.eval_every = 2; }),
            "--eval-every: there is no validation data");
  EXPECT_EQ(refused([](TrainOptions& o) { o.alpha = NAN; }),
            "--alpha: nan given, expected more than 0");
  EXPECT_EQ(refused([](TrainOptions& o) { o.last_layers = -1; }), "--last-layers: -1 is negative");
  EXPECT_EQ(refused([](TrainOptions& o) { o.last_layers = 99; }),
            "--last-layers: 99 given, and the model has 7");
  EXPECT_EQ(refused([](TrainOptions& o) { o.threads = -1; }), "--threads: -1 is negative");
  EXPECT_EQ(refused([](TrainOptions& o) {
              o.method = TrainMethod::kRelora;
              o.warm_start = 9;
            }),
            "--warm-start: 9 leaves none of the 8 steps of --iters to adapters");
}

// Also by what is made late: a run that never began must not be in the way of the next.
TEST_P(TrainRefusalTest, LeavesNoFolder) {
  for (const auto change :
       {+[](TrainOptions& o) { o.rank = 0; }, +[](TrainOptions& o) { o.beta1 = 2; },
        +[](TrainOptions& o) { o.eps = 0; }, +[](TrainOptions& o) { o.weight_decay = -1; },
        +[](TrainOptions& o) {
          o.method = TrainMethod::kRank1;
          o.merge_every = 0;
        }}) {
    TrainOptions o = options("run");
    change(o);
    EXPECT_THROW(train(o), Error);
    EXPECT_FALSE(fs::exists(o.run));
  }
}

// The first step has the rate 0, and the second leaves no value finite.
TEST_P(TrainRefusalTest, ValuesThatAreNotFiniteReplaceNoState) {
  TrainOptions o = options("run");
  o.method = TrainMethod::kFull;
  o.iterations = 2;
  o.warmup = 1;
  o.learning_rate = 1e39;
  o.save_every = 1;
  EXPECT_EQ(error_of([&] { train(o); }),
            "step 2: 'model.embed_tokens.weight' has values that are not finite");
  EXPECT_EQ(read_json_file(o.run / "state/state.json")["step"], 1);
  EXPECT_FALSE(state_of(o.run).empty());
  EXPECT_FALSE(fs::exists(o.run / "model"));
}

INSTANTIATE_TEST_SUITE_P(Lora, TrainRefusalTest, ::testing::Values(TrainMethod::kLora));

class RunFolderTest : public TrainerTest {
 protected:
  // Stops as a kill does, with no word to the run.
  static void kill_after(int64_t step, const TrainOptions& o) {
    struct Killed {};
    EXPECT_THROW(train(o, {},
                       {{},
                        [&](const TrainStep& s) {
                          if (s.step == step) throw Killed();
                        }}),
                 Killed);
  }
};

TEST_P(RunFolderTest, AnAdapterComesWithEachState) {
  TrainOptions o = options("run");
  o.save_every = 3;
  kill_after(5, o);
  TrainOptions shorter = options("shorter");
  shorter.iterations = 3;
  const fs::path adapter = "adapter/adapter_model.safetensors";
  train(shorter);
  EXPECT_FALSE(contents(o.run / adapter).empty());
  EXPECT_EQ(contents(o.run / adapter), contents(shorter.run / adapter));
}

TEST_P(RunFolderTest, AFinishedRunTellsItsLastStep) {
  TrainOptions o = options("run");
  o.iterations = 2;
  o.valid_fraction = 0.3;
  o.objective = TrainObjective::kSetBlock;
  o.block_max = 6;
  o.track_memorization = 2;
  const TrainResult run = train(o);
  o.resume = true;
  const TrainResult again = train(o);
  EXPECT_GT(again.loss, 0);
  EXPECT_EQ(again.loss, run.loss);
  EXPECT_EQ(again.valid_loss, run.valid_loss);
  ASSERT_TRUE(again.set_block && again.valid_set_block && again.memorization);
  EXPECT_EQ(again.set_block->masked, run.set_block->masked);
  EXPECT_EQ(again.valid_set_block->next, run.valid_set_block->next);
  EXPECT_EQ(again.memorization->bits, run.memorization->bits);
  EXPECT_EQ(again.memorization->auc, run.memorization->auc);
}

TEST_P(RunFolderTest, DataIsKnownByWhatIsInIt) {
  TrainOptions o = options("run");
  kill_after(1, o);
  o.resume = true;
  o.data = folder_.path() / "elsewhere.txt";
  std::ofstream(o.data) << kText << " And more.";
  EXPECT_NE(error_of([&] { train(o); }).find("data: "), std::string::npos);
  std::ofstream(o.data) << kText;
  EXPECT_EQ(train(o).steps, 8);
  o.data = folder_.path() / "text.txt";
  std::ofstream(o.data) << "Another text.";
  EXPECT_NE(error_of([&] { train(o); }).find("is not what the run was begun with"),
            std::string::npos);
}

TEST_P(RunFolderTest, AFingerprintThatIsNoNumber) {
  TrainOptions o = options("run");
  o.iterations = 1;
  train(o);
  Json state = read_json_file(o.run / "state/state.json");
  state["data_fingerprint"] = "xyz";
  std::ofstream(o.run / "state/state.json") << state.dump();
  o.resume = true;
  EXPECT_EQ(error_of([&] { train(o); }, folder_.path().string()),
            "/run/state/state.json: field 'data_fingerprint': expected a hexadecimal number, found "
            "'xyz'");
}

TEST_P(RunFolderTest, WhatAKilledRunLeftOfItsFilesGoes) {
  TrainOptions o = options("run");
  o.iterations = 1;
  train(o);
  const fs::path state = o.run / "state/step-00000002.safetensors.tmp-4711-0";
  const fs::path before = o.run / "state/step-00000000.safetensors";
  const fs::path page = o.run / "report.html.tmp-4711-12", other = o.run / "notes.tmp-of-mine";
  for (const fs::path& path : {state, before, page, other}) std::ofstream(path) << "half";
  o.resume = true;
  train(o);
  EXPECT_FALSE(fs::exists(state));
  EXPECT_FALSE(fs::exists(before));
  EXPECT_TRUE(fs::exists(o.run / "state/step-00000001.safetensors"));
  EXPECT_FALSE(fs::exists(page));
  EXPECT_TRUE(fs::exists(other));
}

TEST_P(RunFolderTest, OneRunAtATimeWritesToAFolder) {
  TrainOptions o = options("run");
  o.iterations = 1;
  train(o);
  o.resume = true;
  {
    const FolderLock other(o.run);
    EXPECT_THROW(train(o), Error);
  }
  EXPECT_NO_THROW(train(o));
}

TEST_P(RunFolderTest, SaysWhatBecameOfTheDocuments) {
  TrainOptions o = options("run");
  o.data = folder_.path() / "lines.jsonl";
  std::ofstream lines(o.data);
  lines << Json{{"text", kText}}.dump() << "\n{\"text\": \"short\"}\n"
        << Json{{"prompt", kText}, {"completion", "Yes."}}.dump() << "\n";
  lines.close();
  o.long_documents = "truncate";
  o.iterations = 1;
  DataReport told;
  TrainEvents events;
  events.data = [&](const DataReport& data) { told = data; };
  const TrainResult result = train(o, {}, events);
  EXPECT_EQ(told.documents, 3);
  EXPECT_EQ(told.sequences, 2);
  EXPECT_EQ(told.truncated, 2);
  EXPECT_GT(told.truncated_away, 20);
  EXPECT_EQ(told.without_targets, 1);
  EXPECT_EQ(result.data.truncated, 2);
  EXPECT_EQ(read_json_file(o.run / "config.json")["data_report"]["truncated"], 2);
  const std::string page = render(run_report(o.run), ReportFormat::kHtml);
  EXPECT_NE(page.find("documents cut"), std::string::npos);
  EXPECT_NE(page.find("nothing in them counts"), std::string::npos);
}

TEST_P(RunFolderTest, PromptAndCompletionMayBePlain) {
  TrainOptions o = options("chat");
  o.data = folder_.path() / "lines.jsonl";
  std::ofstream(o.data) << "{\"prompt\": \"one \", \"completion\": \"two\"}\n";
  o.iterations = 1;
  const int64_t chat = train(o).data.tokens;
  o.run = folder_.path() / "plain";
  o.chat_completion = false;
  EXPECT_LE(train(o).data.tokens, chat - 6);  // the frame of two turns
}

INSTANTIATE_TEST_SUITE_P(Lora, RunFolderTest, ::testing::Values(TrainMethod::kLora));

}  // namespace
}  // namespace lapidary
