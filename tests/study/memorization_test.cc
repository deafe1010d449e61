// What a fine-tuned model knows by heart.
#include <filesystem>
#include <fstream>
#include <numbers>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/memorization_study.h"
#include "lapidary/score.h"
#include "lapidary/train.h"

#include "base/json.h"
#include "base/scratch_folder.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";
const std::vector<std::string> kMembers = {"Seven grey cats drank tea on the roof of the bank.",
                                           "The old drum rolled down to the sea and sang there."};
const std::vector<std::string> kOthers = {"A tall man sold blue apples to the queen of the moon.",
                                          "Nobody in the town could open the door of the mill."};

class MemorizationStudyTest : public ::testing::Test {
 protected:
  MemorizationStudyTest() {
    write("members.jsonl", kMembers);
    write("others.jsonl", kOthers);
  }

  void write(const char* name, const std::vector<std::string>& texts) {
    std::ofstream file(folder.path() / name);
    for (const std::string& text : texts) file << Json{{"text", text}} << "\n";
  }
  MemorizationOptions options() const {
    return {.data = folder.path() / "members.jsonl", .held_out = folder.path() / "others.jsonl"};
  }
  static std::shared_ptr<const Engine> load(const fs::path& model) {
    return Engine::load(model, {.compute = Compute::kExact, .threads = 2});
  }
  // Of the built-in model, after so many steps on the members, with what was tracked.
  TrainResult trained(const char* name, int64_t steps) const {
    TrainOptions o;
    o.model = kTiny;
    o.data = folder.path() / "members.jsonl";
    o.run = folder.path() / name;
    o.method = TrainMethod::kFull;
    o.iterations = steps;
    o.batch_size = 2;
    o.packing = false;
    o.sequence_length = 64;
    o.learning_rate = 1e-3;
    o.schedule = "constant";
    o.threads = 2;
    o.compute = Compute::kExact;
    o.track_memorization = 2;
    return train(o);
  }

  ScratchFolder folder;
};

TEST_F(MemorizationStudyTest, FindsWhatTheModelWasTrainedOn) {
  const TrainResult run = trained("run", 30);
  const auto model = load(run.output), reference = load(kTiny);
  const MemorizationStudy study = study_memorization(model, reference, options());
  ASSERT_EQ(study.members.size(), 2u);
  ASSERT_EQ(study.others.size(), 2u);
  EXPECT_GT(mean_bits(study.members), 10 * mean_bits(study.others));
  EXPECT_EQ(study.by_gain.auc, 1);
  EXPECT_EQ(study.by_gain.f1, 1);
  EXPECT_EQ(extraction_rate(study.members), 1);
  EXPECT_EQ(extraction_rate(study.others), 0);

  // The first member by the definitions.
  std::vector<Token> tokens = {model->tokenizer().bos()};
  for (const Token id : model->tokenizer().encode(kMembers[0])) tokens.push_back(id);
  tokens.push_back(model->tokenizer().eos());
  const auto nats = [&](const std::shared_ptr<const Engine>& engine) {
    Session session(engine);
    const Score scored = score(session, tokens);
    return *scored.nll * static_cast<double>(scored.predicted);
  };
  const SequenceMemory& first = study.members[0];
  EXPECT_EQ(first.tokens, std::ssize(tokens) - 1);
  EXPECT_NEAR(first.model_nats, nats(model), 1e-4);
  EXPECT_NEAR(first.reference_nats, nats(reference), 1e-4);
  EXPECT_NEAR(first.bits, (nats(reference) - nats(model)) / std::numbers::ln2, 1e-3);
  EXPECT_EQ(study.data_tokens, study.members[0].tokens + study.members[1].tokens);

  // The trainer followed the same figure, in its own arithmetic and before the weights were
  // rounded to the model's type.
  ASSERT_TRUE(run.memorization.has_value());
  EXPECT_NEAR(run.memorization->bits, mean_bits(study.members), 0.02 * mean_bits(study.members));
  EXPECT_EQ(run.memorization->extraction_rate, extraction_rate(study.members));
  EXPECT_EQ(run.memorization->valid_extraction_rate, std::nullopt);

  // Before it knows any by heart.
  const TrainResult one = trained("one", 1);
  EXPECT_EQ(one.memorization->extraction_rate, 0);
  EXPECT_EQ(extraction_rate(study_memorization(load(one.output), reference, options()).members), 0);
}

TEST_F(MemorizationStudyTest, AModelKnowsNothingBeyondItself) {
  const auto tiny = load(kTiny);
  const MemorizationStudy study = study_memorization(tiny, tiny, options());
  EXPECT_EQ(mean_bits(study.members), 0);
  EXPECT_EQ(mean_bits(study.others), 0);
  EXPECT_EQ(study.by_gain.auc, 0.5);
}

TEST_F(MemorizationStudyTest, RefusesAnotherVocabulary) {
  const auto tiny = load(kTiny);
  const auto other = load(fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden/gemma3-v5");
  try {
    study_memorization(tiny, other, options());
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("a vocabulary of"), std::string::npos);
  }
}

}  // namespace
}  // namespace lapidary
