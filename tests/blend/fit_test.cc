// Weights found from examples: they are the minimum, and the blend has the loss that was promised.
#include <cmath>

#include <gtest/gtest.h>

#include "lapidary/blend.h"
#include "lapidary/train.h"

#include "base/rng.h"
#include "gemma/adapter_file.h"
#include "gemma/load.h"
#include "io/test_files.h"
#include "train/lora.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

// An adapter that was trained on the data, and one that is noise.
class Fit : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!fs::exists(kTiny / "model.safetensors")) return;
    folder_ = std::make_unique<ScratchFolder>();
    std::string lines;
    for (int i = 0; i < 12; ++i)
      lines += R"({"text": "A lapidary cuts stones. The stone that is cut is called a gem."})"
               "\n";
    folder_->write("data.jsonl", lines);
    train({.model = kTiny,
           .data = data(),
           .run = folder_->path() / "run",
           .iterations = 10,
           .sequence_length = 64,
           .learning_rate = 1e-2,
           .rank = 2});
    Adapter noise = make_lora(load_model(kTiny).config, {.rank = 3});
    const CounterRng rng(5);
    for (AdapterMatrix& m : noise.matrices)
      for (size_t i = 0; i < m.b.size(); ++i) m.b[i] = 0.05f * rng.normal(i);
    save_adapter({.adapter = noise}, AdapterFormat::kPeft, folder_->path() / "noise", false);
  }
  static void TearDownTestSuite() { folder_.reset(); }
  void SetUp() override {
    if (folder_ == nullptr) GTEST_SKIP() << "models/tiny has no weights";
  }

  static fs::path data() { return folder_->path() / "data.jsonl"; }
  static std::vector<BlendPart> parts(double useful = 1, double noise = 1) {
    return {{folder_->path() / "run/adapter", useful}, {folder_->path() / "noise", noise}};
  }
  static FitOptions options() { return {.model = kTiny, .data = data(), .sequence_length = 64}; }
  // What is minimised, at weights of the parts.
  static double objective(const std::vector<BlendPart>& at) {
    FitOptions o = options();
    o.passes = 3;
    double sizes = 0;
    for (const BlendPart& part : at) sizes += std::abs(part.weight);
    return fit_blend(at, o).given_loss + o.penalty * sizes;
  }

  static std::unique_ptr<ScratchFolder> folder_;
};
std::unique_ptr<ScratchFolder> Fit::folder_;

TEST_F(Fit, FindsTheMinimum) {
  const BlendFit fit = fit_blend(parts(), options());
  EXPECT_TRUE(fit.settled);
  ASSERT_EQ(fit.weights.size(), 2u);
  const double useful = fit.weights[0][0], noise = fit.weights[1][0];
  EXPECT_GT(useful, 0.5);
  EXPECT_LT(useful, 1.45);  // within the limits
  EXPECT_LT(std::abs(noise), 0.3);
  EXPECT_LT(fit.loss, fit.base_loss - 1);
  EXPECT_LT(fit.loss, fit.given_loss);
  const double least = fit.loss + 0.05 * (std::abs(useful) + std::abs(noise));
  EXPECT_NEAR(objective(parts(useful, noise)), least, 1e-6);
  for (const double move : {-0.05, 0.05}) {
    EXPECT_GT(objective(parts(useful + move, noise)), least) << move;
    EXPECT_GT(objective(parts(useful, noise + move)), least) << move;
  }
}

TEST_F(Fit, TheBlendHasTheLossThatWasFound) {
  FitOptions o = options();
  o.per_layer = true;
  o.passes = 8;
  const BlendFit fit = fit_blend(parts(), o);
  std::vector<BlendPart> found = parts();
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(fit.weights[i].size(), 7u);
    found[i].layer_weights = fit.weights[i];
  }
  EXPECT_NE(fit.weights[0], std::vector<double>(7, fit.weights[0][0]));
  blend(found, folder_->path() / "both", {});
  const std::vector<BlendPart> both = {{folder_->path() / "both"}};
  EXPECT_NEAR(fit_blend(both, options()).given_loss, fit.loss, 1e-5);
}

TEST_F(Fit, APenaltyAboveEverySlopeLeavesNothing) {
  FitOptions o = options();
  o.penalty = 100;
  const BlendFit fit = fit_blend(parts(0.5, -0.5), o);
  EXPECT_EQ(fit.weights, (std::vector<std::vector<double>>{{0}, {0}}));
  EXPECT_EQ(fit.loss, fit.base_loss);
  EXPECT_TRUE(fit.settled);
}

// A tenth of the adapter would have to count ten times.
TEST_F(Fit, WeightsStayWithinTheirLimits) {
  blend({{parts()[0].adapter, 0.1}}, folder_->path() / "tenth", {});
  FitOptions o = options();
  o.penalty = 0;
  const BlendFit fit = fit_blend({{folder_->path() / "tenth", -1}}, o);
  EXPECT_EQ(fit.weights[0][0], 1.5);
  EXPECT_TRUE(fit.settled);
}

TEST_F(Fit, ThreadsChangeNoBitAndPassesAreTheLimit) {
  FitOptions o = options();
  o.passes = 5;
  o.penalty = 0;
  o.threads = 1;
  const BlendFit one = fit_blend(parts(), o);
  o.threads = 3;
  const BlendFit three = fit_blend(parts(), o);
  EXPECT_EQ(one.weights, three.weights);
  EXPECT_EQ(one.loss, three.loss);
  EXPECT_LE(one.passes, 5);
}

TEST_F(Fit, WhatCannotBe) {
  const auto error = [&](const std::vector<BlendPart>& given, const FitOptions& o) {
    return error_of([&] { fit_blend(given, o); }, folder_->path().string());
  };
  EXPECT_EQ(error({}, options()), "no adapter given to blend");
  EXPECT_EQ(error(parts(2), options()),
            "/run/adapter: weight 2 given, expected -1.5 to 1.5 where weights are learned");
  FitOptions o = options();
  o.penalty = -1;
  EXPECT_EQ(error(parts(), o), "--penalty: -1 given, expected 0 or more");
  o = options();
  o.passes = 2;
  EXPECT_EQ(error(parts(), o), "--passes: 2 given, expected 3 or more");
  o = options();
  o.data = folder_->path() / "none.jsonl";
  EXPECT_NE(error(parts(), o).find("/none.jsonl: "), std::string::npos);
}

// A stop is heeded within a pass.
TEST_F(Fit, Stops) {
  std::stop_source stop;
  const Watch watch{[&](int64_t, int64_t) { stop.request_stop(); }, stop.get_token()};
  EXPECT_THROW(fit_blend(parts(), options(), watch), Error);
}

}  // namespace
}  // namespace lapidary
