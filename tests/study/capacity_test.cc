// Small models that learn random tokens by heart.
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <stop_token>

#include <gtest/gtest.h>

#include "lapidary/capacity_study.h"
#include "lapidary/error.h"

#include "base/scratch_folder.h"
#include "gemma/load.h"
#include "io/folder_lock.h"
#include "io/output_file.h"
#include "study/capacity_file.h"
#include "study/capacity_report.h"

namespace lapidary {
namespace {

// Seconds: 3000 parameters, 60 tokens of 4 bits that they can hold, and 1500 that they cannot.
CapacityOptions toy(const std::filesystem::path& folder) {
  return {.folder = folder,
          .sizes = {3000},
          .loads = {0.08, 2},
          .layers = 1,
          .vocabulary = 16,
          .epochs = 60,
          .recipe = {.length = 16, .batch = 8, .learning_rate = 0.03},
          .threads = 2};
}

OrderedJson figures(const CapacityStudy& study) {
  OrderedJson json = to_json(study);
  for (const char* list : {"runs", "halves"})
    for (OrderedJson& run : json[list]) run.erase("seconds");
  return json;
}

TEST(Capacity, CountsWhatAModelHasLearntByHeart) {
  const ScratchFolder folder;
  const CapacityStudy study = study_capacity(toy(folder.path()));
  ASSERT_EQ(study.runs.size(), 2u);
  const CapacityRun &few = study.runs[0], &many = study.runs[1];
  EXPECT_EQ(few.parameters, load_model(folder.path() / "3000" / "model").parameters);
  EXPECT_NEAR(static_cast<double>(few.parameters), 3000, 300);
  // Of each sequence, 15 tokens of 4 bits are predicted.
  EXPECT_EQ(few.sequences, std::llround(0.08 * static_cast<double>(few.parameters) / 60));
  EXPECT_EQ(few.tokens, 15 * few.sequences);
  EXPECT_DOUBLE_EQ(few.data_bits, 60 * static_cast<double>(few.sequences));
  EXPECT_GT(few.memorized_bits, 0.8 * few.data_bits);
  EXPECT_LE(few.memorized_bits, few.data_bits);
  EXPECT_LT(few.control_bits, 0.05 * few.data_bits);
  // Nothing is certain of more than fits.
  EXPECT_GT(many.memorized_bits, few.memorized_bits);
  EXPECT_LT(many.memorized_bits, 0.8 * many.data_bits);
  EXPECT_LT(many.control_bits, 0.05 * many.data_bits);

  ASSERT_EQ(study.sizes.size(), 1u);
  const CapacityRun& half = study.halves.at(0);
  EXPECT_EQ(half.epochs, 30);
  EXPECT_EQ(half.load, 2);
  EXPECT_DOUBLE_EQ(study.sizes[0].capacity_bits, many.memorized_bits);
  EXPECT_DOUBLE_EQ(study.sizes[0].gain_of_data.value(),
                   many.memorized_bits / few.memorized_bits - 1);
  EXPECT_DOUBLE_EQ(study.sizes[0].gain_of_training, many.memorized_bits / half.memorized_bits - 1);
  EXPECT_DOUBLE_EQ(study.bits_per_parameter, many.bits_per_parameter());
}

TEST(Capacity, SaysWhereNoPlateauWasReached) {
  CapacityStudy study;
  study.options.loads = {1, 2};
  study.sizes = {
      {.parameters = 7, .gain_of_data = 0.5, .gain_of_training = 0.01, .training_plateau = true}};
  ASSERT_EQ(capacity_remarks(study).size(), 1u);
  EXPECT_NE(capacity_remarks(study)[0].find("7 parameters: no plateau over data"),
            std::string::npos);
  study.sizes[0].data_plateau = true;
  EXPECT_TRUE(capacity_remarks(study).empty());
}

TEST(Capacity, DataThatHardlyGrewShowsNoPlateau) {
  const ScratchFolder folder;
  CapacityOptions options = toy(folder.path());
  options.loads = {0.08, 0.0801};  // as many sequences
  const CapacityStudy study = study_capacity(options);
  EXPECT_EQ(study.sizes.at(0).gain_of_data, 0);
  EXPECT_FALSE(study.sizes[0].data_plateau);
  EXPECT_NE(capacity_remarks(study).at(0).find("too near"), std::string::npos);
}

TEST(Capacity, OfOneLoadHasNoGainOfData) {
  CapacityStudy study;
  study.sizes = {{.parameters = 7, .training_plateau = true}};
  EXPECT_TRUE(to_json(study)["sizes"][0]["gain_of_data"].is_null());
  EXPECT_NE(capacity_remarks(study).at(0).find("one data set alone"), std::string::npos);
}

TEST(Capacity, RefusesAFolderOfSomethingElse) {
  const ScratchFolder folder;
  write_file(folder.path() / "report.html", "somebody's");
  EXPECT_THROW(study_capacity(toy(folder.path())), Error);
}

TEST(Capacity, RefusesAFolderThatAnotherProcessWritesTo) {
  const ScratchFolder folder;
  const FolderLock other(folder.path());
  EXPECT_THROW(study_capacity(toy(folder.path())), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Capacity, RefusesARateBeforeTheFolderIsBegun) {
  const ScratchFolder folder;
  CapacityOptions options = toy(folder.path() / "new");
  for (const double rate : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    options.recipe.learning_rate = rate;
    EXPECT_THROW(study_capacity(options), Error) << rate;
  }
  EXPECT_FALSE(std::filesystem::exists(options.folder));
}

TEST(Capacity, GoesOnWhereItWasStoppedAndDoesNotDependOnThreads) {
  const ScratchFolder one, other;
  CapacityOptions options = toy(one.path());
  options.epochs = 20;
  const OrderedJson expected = figures(study_capacity(options));

  options.folder = other.path();
  options.threads = 1;
  std::stop_source stop;
  const auto at_once = [&](int64_t done, int64_t total) {
    if (2 * done > total) stop.request_stop();
  };
  try {
    study_capacity(options, Watch{at_once, stop.get_token()});
    FAIL() << "it was not stopped";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_EQ(figures(study_capacity(options)), expected);
}

TEST(Capacity, RefusesAFolderOfOtherOptions) {
  const ScratchFolder folder;
  CapacityOptions options = toy(folder.path());
  options.epochs = 2;
  study_capacity(options);
  options.vocabulary = 32;
  try {
    study_capacity(options);
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("begun with vocabulary 16, now 32"),
              std::string::npos);
  }
}

TEST(Capacity, ShapesHaveTheParametersAskedFor) {
  for (const int64_t size : {50'000, 75'000, 100'000, 250'000, 1'000'000})
    for (const int layers : {1, 4}) {
      const Config c = capacity_shape(size, 512, layers);
      const int64_t d = c.hidden_size;
      const int64_t found = 512 * d + d +
                            layers * (2 * d * c.q_dim() + 2 * d * c.kv_dim() +
                                      3 * d * c.intermediate_size + 4 * d + 2 * c.head_dim);
      EXPECT_NEAR(static_cast<double>(found), static_cast<double>(size),
                  0.08 * static_cast<double>(size));
    }
  EXPECT_THROW(capacity_shape(10'000, 1024, 1), Error);
}

TEST(Capacity, RandomTokensAreUniformAndOfTheirSeed) {
  const auto data = random_sequences(500, 16, 10, 1, 0);
  std::vector<int> counts(10);
  for (const auto& sequence : data)
    for (const Token token : sequence) ++counts.at(static_cast<size_t>(token));
  // 8000 draws: the standard deviation of a count is 27.
  for (const int count : counts) EXPECT_NEAR(count, 800, 135);
  EXPECT_EQ(data, random_sequences(500, 16, 10, 1, 0));
  EXPECT_NE(data, random_sequences(500, 16, 10, 2, 0));
  EXPECT_NE(data, random_sequences(500, 16, 10, 1, 1));
}

}  // namespace
}  // namespace lapidary
