// Forecasts of memory against what the system counts.
#include <filesystem>
#include <fstream>
#include <numeric>
#include <stop_token>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/memory_study.h"

#include "base/scratch_folder.h"
#include "gemma/kv_cache.h"
#include "gemma/load.h"
#include "study/memory_report.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";
constexpr int64_t kMib = int64_t{1} << 20;

double ratio(int64_t measured, int64_t predicted) {
  return static_cast<double>(measured) / static_cast<double>(predicted);
}

const MemoryPhase& phase(const std::vector<MemoryPhase>& phases, const std::string& name) {
  const auto found = std::ranges::find(phases, name, &MemoryPhase::name);
  if (found == phases.end()) throw std::runtime_error("no phase " + name);
  return *found;
}

MemoryStudy study_tiny(const std::optional<TrainOptions>& training = {}) {
  return study_memory({.model = kTiny,
                       .engine = {.threads = 2},
                       .prompt = 300,
                       .generated = 20,
                       .context = 700,
                       .training = training});
}

class MemoryOfTiny : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kTiny / "model.safetensors")) GTEST_SKIP() << "models/tiny has no weights";
  }
};

TEST_F(MemoryOfTiny, GenerationIsAsForecast) {
  const MemoryStudy study = study_tiny();
  const GenerationMemory& g = study.generation;
  ASSERT_EQ(g.phases.size(), 3u);
  for (const MemoryPhase& p : g.phases) {
    EXPECT_LE(p.begin, p.end);
    ASSERT_TRUE(p.predicted);
    EXPECT_LE(p.anonymous, p.measured.total());
    EXPECT_GT(p.peak, p.measured.total() - kMib) << p.name;
  }
  const MemoryPhase& load = phase(g.phases, "load");
  EXPECT_EQ(load.measured.kv_cache, 0);
  EXPECT_LT(ratio(load.measured.weights, load.predicted->weights), 0.5);  // mapped, hardly touched
  const MemoryPhase& decode = phase(g.phases, "decode");
  EXPECT_NEAR(ratio(decode.measured.weights, decode.predicted->weights), 1, 0.05);
  EXPECT_LE(decode.measured.kv_cache, decode.predicted->kv_cache);
  EXPECT_GT(ratio(decode.measured.kv_cache, decode.predicted->kv_cache), 0.7);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their shadow counts too
  EXPECT_NEAR(ratio(decode.measured.total(), decode.predicted->total()), 1, 0.25);
#endif
  EXPECT_FALSE(g.timeline.empty());
}

TEST_F(MemoryOfTiny, LayersAddUp) {
  const MemoryStudy study = study_tiny();
  const GenerationMemory& g = study.generation;
  const auto sum = [&](int64_t LayerMemory::*field) {
    return std::accumulate(g.layers.begin(), g.layers.end(), int64_t{0},
                           [&](int64_t all, const LayerMemory& l) { return all + l.*field; });
  };
  const MemoryPhase& decode = phase(g.phases, "decode");
  EXPECT_EQ(sum(&LayerMemory::kv_cache), decode.measured.kv_cache);
  EXPECT_EQ(sum(&LayerMemory::kv_predicted), decode.predicted->kv_cache);
  const Model model = load_model(kTiny);
  int64_t matrices = 0;
  for (const WeightMatrix* m : list_matrices(model)) matrices += m->bytes();
  EXPECT_EQ(sum(&LayerMemory::weights), matrices - model.weights.embed_tokens.bytes());
  EXPECT_EQ(sum(&LayerMemory::weights_cached), sum(&LayerMemory::weights));  // all was just read
  EXPECT_EQ(study.cached_after, study.file_bytes);
}

TEST_F(MemoryOfTiny, CachesGrowAsForecast) {
  const MemoryStudy study = study_tiny();
  ASSERT_EQ(study.growth.size(), 4u);
  for (const KvGrowth& g : study.growth) {
    ASSERT_EQ(g.points.size(), 3u);  // 256, 512, 700
    EXPECT_EQ(g.points.back().context, 700);
    for (size_t i = 0; i < g.points.size(); ++i) {
      EXPECT_LE(g.points[i].measured, g.points[i].predicted);
      EXPECT_GT(ratio(g.points[i].measured, g.points[i].predicted), 0.7);
      if (i > 0) {
        EXPECT_GT(g.points[i].measured, g.points[i - 1].measured);
      }
    }
  }
  // f32, bf16 and q8: 32, 16 and 9 bits a value.
  const auto last = [&](size_t i) { return study.growth[i].points.back().measured; };
  EXPECT_NEAR(ratio(last(0), last(1)), 2, 0.01);
  EXPECT_NEAR(ratio(last(1), last(2)), 16.0 / 9, 0.02);
}

TEST_F(MemoryOfTiny, TrainingIsAsForecast) {
  const ScratchFolder scratch;
  scratch.write("text.txt", std::string(4000, 'a') + " b c d e f g");
  for (const TrainMethod method : {TrainMethod::kFull, TrainMethod::kLora}) {
    TrainOptions options;
    options.data = scratch.path() / "text.txt";
    options.run = scratch.path() / name_of(method);
    options.method = method;
    options.iterations = 2;
    options.batch_size = 1;
    options.sequence_length = 128;
    options.long_documents = "split";
    options.threads = 2;
    const MemoryStudy study = study_tiny(options);
    ASSERT_TRUE(study.training);
    const TrainingMemory& t = *study.training;
    ASSERT_EQ(t.phases.size(), 5u);
    const MemoryPhase& last = phase(t.phases, "later steps");
    EXPECT_NEAR(ratio(last.measured.trained, t.forecast.trained), 1, 0.02) << name_of(method);
    EXPECT_NEAR(ratio(last.measured.optimizer, t.forecast.optimizer), 1, 0.02);
    EXPECT_NEAR(ratio(last.measured.total(), t.forecast.total()), 1, 0.25);
    EXPECT_LE(phase(t.phases, "forward").end, phase(t.phases, "backward").end);
    EXPECT_GT(phase(t.phases, "forward").measured.rest,
              phase(t.phases, "before").measured.rest + kMib);
    // What each layer leaves for its way back comes on top of what those before it left.
    ASSERT_EQ(t.layers.size(), 7u);
    EXPECT_GT(t.layers.back().forward, t.layers.front().forward + kMib);
    for (const LayerActivations& l : t.layers) EXPECT_GE(l.backward, t.layers.back().forward / 2);
    const auto json = to_json(study);
    EXPECT_EQ(json["training"]["phases"].size(), 5u);
    const std::string page = render(memory_report(study, "tiny"), ReportFormat::kHtml);
    EXPECT_NE(page.find("The first step by layer"), std::string::npos);
  }
}

TEST_F(MemoryOfTiny, RefusesAndStops) {
  EXPECT_THROW(study_memory({.model = "/nowhere"}), Error);
  EXPECT_THROW(study_memory({.model = kTiny, .prompt = 0}), Error);
  std::stop_source source;
  source.request_stop();
  EXPECT_THROW(study_memory({.model = kTiny}, Watch{{}, source.get_token()}), Error);
}

}  // namespace
}  // namespace lapidary
