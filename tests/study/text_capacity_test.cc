// Small models on growing amounts of a text.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/text_capacity_study.h"

#include "base/rng.h"
#include "base/scratch_folder.h"
#include "study/text_capacity_file.h"
#include "study/text_capacity_report.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

// Words by chance from a few: there is something to learn by heart, and something in common.
std::string words(int64_t count) {
  const std::vector<std::string> all = {"red ", "green ", "stone ", "cuts ", "light ", "a "};
  const CounterRng rng(3, 0);
  std::string text;
  for (int64_t i = 0; i < count; ++i)
    text += all[static_cast<size_t>(rng.uniform(static_cast<uint64_t>(i)) * 6)];
  return text;
}

class TextCapacityTest : public ::testing::Test {
 protected:
  TextCapacityTest() { write(words(1200)); }
  void write(const std::string& text) const { std::ofstream(file()) << text; }
  fs::path file() const { return folder.path() / "text.txt"; }
  // Seconds: 3000 parameters; 16 bytes a sequence.
  TextCapacityOptions toy(const char* name) const {
    return {.folder = folder.path() / name,
            .text = file(),
            .sizes = {3000},
            .loads = {0.1, 1},
            .layers = 1,
            .steps = 120,
            .held_out = 40,
            .recipe = {.length = 16, .batch = 16, .learning_rate = 0.03},
            .threads = 2};
  }

  ScratchFolder folder;
};

OrderedJson figures(const TextCapacityStudy& study) {
  OrderedJson json = to_json(study);
  for (OrderedJson& size : json["sizes"]) {
    for (OrderedJson& run : size["runs"]) run.erase("seconds");
    size["half"].erase("seconds");
  }
  return json;
}

std::string message_of(const TextCapacityOptions& options) {
  try {
    study_text_capacity(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "it was taken";
}

TEST_F(TextCapacityTest, AFewSequencesAreLearntByHeartAndManyAreNot) {
  const TextCapacityStudy study = study_text_capacity(toy("study"));
  ASSERT_EQ(study.sizes.size(), 1u);
  const TextCapacityOfSize& size = study.sizes[0];
  ASSERT_EQ(size.runs.size(), 3u);
  const TextCapacityRun &few = size.runs[0], &more = size.runs[1], &all = size.runs[2];
  const double per_sequence = 15 * std::log2(study.vocabulary);
  EXPECT_EQ(few.sequences, std::llround(0.1 * static_cast<double>(size.parameters) / per_sequence));
  EXPECT_DOUBLE_EQ(few.data_bits, static_cast<double>(few.sequences) * per_sequence);
  EXPECT_EQ(all.sequences, study.sequences);

  EXPECT_LT(few.train_loss, 0.2);
  EXPECT_GT(few.test_loss, 10 * few.train_loss);
  EXPECT_EQ(few.extraction_rate, 1);
  EXPECT_EQ(few.membership.auc, 1);
  EXPECT_GT(few.memorized_bits, 5 * few.test_memorized_bits);
  EXPECT_GT(few.memorized_bits, more.memorized_bits);
  // Known by heart is what the reference does not know: about all that it needs for them.
  EXPECT_NEAR(few.memorized_bits * static_cast<double>(few.sequences), few.reference_bits,
              0.1 * few.reference_bits);
  // The reference knows nothing beyond itself, and of words what they have in common.
  EXPECT_EQ(all.memorized_bits, 0);
  EXPECT_LT(all.test_loss, few.test_loss);
  EXPECT_NEAR(all.reference_bits, all.train_loss * static_cast<double>(all.tokens) / std::log(2.0),
              1e-6 * all.reference_bits);
  EXPECT_LT(all.membership.auc, 0.8);

  // The amount next to the capacity, 3.5 bits for each parameter, is the last but one or all.
  EXPECT_EQ(size.half.steps, 60);
  EXPECT_GE(size.half.sequences, more.sequences);
  EXPECT_EQ(size.most_memorized, 1u);
  const std::vector<std::string> findings = text_capacity_findings(study);
  EXPECT_NE(findings[0].find("double descent"), std::string::npos);
}

TEST_F(TextCapacityTest, GoesOnWhereItWasStoppedAndDoesNotDependOnThreads) {
  TextCapacityOptions options = toy("one");
  options.steps = 40;
  const OrderedJson expected = figures(study_text_capacity(options));
  options.folder = folder.path() / "other";
  options.threads = 1;
  std::stop_source stop;
  const auto at_once = [&](int64_t done, int64_t total) {
    if (2 * done > total) stop.request_stop();
  };
  try {
    study_text_capacity(options, Watch{at_once, stop.get_token()});
    FAIL() << "it was not stopped";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_EQ(figures(study_text_capacity(options)), expected);
  // And what is kept is read as it was.
  EXPECT_EQ(figures(study_text_capacity(options)), expected);
  options.loads = {0.2};
  EXPECT_EQ(study_text_capacity(options).sizes[0].runs.size(), 2u);

  write(words(1300));
  EXPECT_NE(message_of(options).find("begun with fingerprint"), std::string::npos);
}

TEST_F(TextCapacityTest, LoadsDoubleUpToTheTextIfNoneAreGiven) {
  TextCapacityOptions options = toy("study");
  options.loads = {};
  options.steps = 2;
  const auto runs = study_text_capacity(options).sizes[0].runs;
  ASSERT_GE(runs.size(), 3u);
  for (size_t i = 1; i + 1 < runs.size(); ++i)
    EXPECT_NEAR(static_cast<double>(runs[i].sequences),
                2 * static_cast<double>(runs[i - 1].sequences), 1.0);
  EXPECT_NEAR(runs[0].load, 0.25, 0.02);
  EXPECT_LE(runs.back().sequences, 2 * runs[runs.size() - 2].sequences + 1);
}

TEST_F(TextCapacityTest, RefusesWhatCannotBe) {
  TextCapacityOptions options = toy("study");
  options.loads = {1, 500};
  EXPECT_NE(message_of(options).find("a load of 500 takes"), std::string::npos);
  options.loads = {1, 1};
  EXPECT_NE(message_of(options).find("they do not ascend"), std::string::npos);
  options.loads = {1};
  options.held_out = 100'000;
  EXPECT_NE(message_of(options).find("expected more than the 100000 to hold out"),
            std::string::npos);
  options.held_out = 40;
  options.text = folder.path() / "none.txt";
  EXPECT_NE(message_of(options).find("none.txt"), std::string::npos);
  options.text = file();
  write("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  EXPECT_NE(message_of(options).find("1 different tokens"), std::string::npos);
}

TEST_F(TextCapacityTest, SequencesAreDifferentAndInAnOrderByChance) {
  write("abcdabcdefghefgeabcdijkl12");
  const TextSequences found = text_sequences(file(), {}, 4, 2, 0);
  EXPECT_EQ(found.vocabulary, 14);  // but for the two bytes at the end, which are left out
  EXPECT_EQ(found.duplicates, 2);
  EXPECT_EQ(found.held_out.size(), 2u);
  EXPECT_EQ(found.train.size(), 2u);
  std::set<std::vector<Token>> all(found.train.begin(), found.train.end());
  all.insert(found.held_out.begin(), found.held_out.end());
  // '1' and '2' are 0 and 1, 'a' is 2.
  EXPECT_EQ(all, (std::set<std::vector<Token>>{
                     {2, 3, 4, 5}, {6, 7, 8, 9}, {6, 7, 8, 6}, {10, 11, 12, 13}}));
  EXPECT_EQ(text_sequences(file(), {}, 4, 2, 0).train, found.train);
  EXPECT_EQ(text_sequences(file(), {}, 4, 2, 0).fingerprint, found.fingerprint);

  write(words(400));
  const TextSequences pieces = text_sequences(file(), kTiny, 4, 2, 0);
  const TextSequences bytes = text_sequences(file(), {}, 4, 2, 0);
  EXPECT_LT(pieces.train.size() + static_cast<size_t>(pieces.duplicates),
            bytes.train.size() + static_cast<size_t>(bytes.duplicates));
  EXPECT_NE(bytes.held_out, text_sequences(file(), {}, 4, 2, 1).held_out);
}

TEST(DoubleDescent, IsARiseAndAFall) {
  const auto peak = [](std::vector<double> losses) { return find_double_descent(losses); };
  ASSERT_TRUE(peak({3, 2, 5, 4, 1}).has_value());
  EXPECT_EQ(peak({3, 2, 5, 4, 1})->peak, 2u);
  EXPECT_DOUBLE_EQ(peak({3, 2, 5, 4, 1})->rise, 3);
  EXPECT_DOUBLE_EQ(peak({3, 2, 5, 4, 1})->fall, 4);
  EXPECT_FALSE(peak({5, 4, 3, 2}).has_value());
  EXPECT_FALSE(peak({1, 2, 3}).has_value());
  EXPECT_FALSE(peak({5, 4, 4.01, 2}).has_value());  // no more than noise
  EXPECT_FALSE(peak({5}).has_value());
  EXPECT_FALSE(peak({}).has_value());
}

TEST(Grokking, IsWhereMemorisedBitsBeginToFall) {
  const auto last = [](std::vector<double> bits) { return find_grokking(bits); };
  EXPECT_EQ(last({98, 100, 96, 90, 40}), 2u);
  EXPECT_EQ(last({10, 100, 99}), std::nullopt);
  EXPECT_EQ(last({100}), std::nullopt);
  EXPECT_EQ(last({}), std::nullopt);
}

TEST(TextCapacityFindings, SayWhatWasNotSeen) {
  TextCapacityStudy study;
  study.sizes.push_back({.parameters = 7,
                         .capacity_bits = 25,
                         .runs = {{.sequences = 3}},
                         .half = {.sequences = 3},
                         .gain_of_training = 0.01,
                         .training_plateau = true});
  const auto found = text_capacity_findings(study);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].find("7 parameters: no double descent"), 0u);
  EXPECT_EQ(found[1].find("7 parameters: no grokking point"), 0u);
  EXPECT_NE(found[2].find("stay within the capacity"), std::string::npos);
  study.sizes[0].gain_of_training.reset();
  EXPECT_NE(text_capacity_findings(study).back().find("not looked for"), std::string::npos);
}

}  // namespace
}  // namespace lapidary
