// Adapters on single layers that learn by heart.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stop_token>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/layer_capacity_study.h"

#include "base/scratch_folder.h"
#include "study/layer_capacity_file.h"
#include "study/layer_capacity_report.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

class LayerCapacityTest : public ::testing::Test {
 protected:
  LayerCapacityOptions toy(const char* name) const {
    return {.folder = folder.path() / name,
            .model = kTiny,
            .sequences = 4,
            .layers = {5, 0},
            .rank = 2,
            .steps = 30,
            .recipe = {.length = 12,
                       .batch = 4,
                       .optimizer = "adamw",
                       .learning_rate = 0.02,
                       .weight_decay = 0},
            .threads = 2};
  }
  ScratchFolder folder;
};

OrderedJson figures(const LayerCapacityStudy& study) {
  OrderedJson json = to_json(study);
  for (OrderedJson& run : json["runs"]) run.erase("seconds");
  return json;
}

std::string message_of(const LayerCapacityOptions& options) {
  try {
    study_layer_capacity(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "it was taken";
}

TEST_F(LayerCapacityTest, CountsWhatAdaptersOfSingleLayersHold) {
  const LayerCapacityStudy study = study_layer_capacity(toy("study"));
  ASSERT_EQ(study.runs.size(), 3u);
  EXPECT_EQ(study.runs[0].layer, 0);
  EXPECT_EQ(study.runs[1].layer, 5);
  EXPECT_EQ(study.runs[2].layer, LayerCapacityRun::kAllLayers);
  EXPECT_EQ(study.tokens, 4 * 11);
  // Of the built-in model's width 256, MLP of 640, 4 heads of 64 and 2 of keys: q, k, v, o, gate,
  // up and down.
  const int64_t each = 2 * (2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 640));
  EXPECT_EQ(study.runs[0].parameters, each);
  EXPECT_EQ(study.runs[1].parameters, each);
  EXPECT_EQ(study.runs[2].parameters, 7 * each);
  for (const LayerCapacityRun& run : study.runs) {
    EXPECT_DOUBLE_EQ(run.data_bits, 4 * 11 * std::log2(4096));
    EXPECT_GT(run.memorized_bits, 0);
    EXPECT_LT(run.memorized_bits, run.data_bits);
    EXPECT_LT(run.control_bits, 0.1 * run.data_bits);
    EXPECT_LT(run.loss, std::log(4096.0));
  }
  EXPECT_GT(study.runs[2].memorized_bits, study.runs[0].memorized_bits);
  EXPECT_GT(study.runs[2].memorized_bits, study.runs[1].memorized_bits);
  EXPECT_NE(study.runs[0].memorized_bits, study.runs[1].memorized_bits);
  const Report report = layer_capacity_report(study);
  EXPECT_EQ(report.charts[0].labels, (std::vector<std::string>{"0", "5", "all"}));
}

TEST_F(LayerCapacityTest, GoesOnWhereItWasStoppedAndDoesNotDependOnThreads) {
  LayerCapacityOptions options = toy("one");
  options.steps = 10;
  const OrderedJson expected = figures(study_layer_capacity(options));
  options.folder = folder.path() / "other";
  options.threads = 1;
  std::stop_source stop;
  const auto at_once = [&](int64_t done, int64_t total) {
    if (2 * done > total) stop.request_stop();
  };
  EXPECT_THROW(study_layer_capacity(options, Watch{at_once, stop.get_token()}), Error);
  EXPECT_EQ(figures(study_layer_capacity(options)), expected);
  EXPECT_EQ(figures(study_layer_capacity(options)), expected);
  options.rank = 3;
  EXPECT_NE(message_of(options).find("begun with rank 2, now 3"), std::string::npos);
}

// Of what is given, only what the base does not know counts.
TEST_F(LayerCapacityTest, CountsWhatTheBaseDoesNotKnowOfGivenData) {
  std::ofstream(folder.path() / "text.txt")
      << "Seven grey cats drank tea on the roof of the bank. The old drum rolled down to the sea "
         "and sang there. A tall man sold blue apples to the queen of the moon. Nobody in the town "
         "could open the door of the mill, for the key was in the river with the fish.";
  LayerCapacityOptions options = toy("given");
  options.data = folder.path() / "text.txt";
  options.sequences = 2;
  options.layers = {3};
  const LayerCapacityStudy study = study_layer_capacity(options);
  EXPECT_EQ(study.tokens, 2 * 11);
  const LayerCapacityRun& run = study.runs[0];
  EXPECT_GT(run.memorized_bits, 0.3 * run.data_bits);
  EXPECT_NEAR(run.loss, (run.data_bits - run.memorized_bits) * std::log(2.0) / 22, 1e-3);

  options.folder = folder.path() / "other";
  options.sequences = 100;
  EXPECT_NE(message_of(options).find("expected 100 of either"), std::string::npos);
}

TEST_F(LayerCapacityTest, RefusesLayersThatThereAreNot) {
  LayerCapacityOptions options = toy("none");
  options.layers = {7};
  EXPECT_NE(message_of(options).find("--layers: 7 given, the model has 0 to 6"), std::string::npos);
  EXPECT_FALSE(fs::exists(options.folder));
}

}  // namespace
}  // namespace lapidary
