// What a model is made of, against what the engine and the benchmarks count.
#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>

#include "lapidary/architecture_study.h"
#include "lapidary/engine.h"
#include "lapidary/error.h"

#include "bench/work.h"
#include "study/architecture_report.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";

class ArchitectureOf : public ::testing::TestWithParam<const char*> {};

TEST_P(ArchitectureOf, IsWhatTheEngineHas) {
  const Architecture a = study_architecture(kGolden / GetParam());
  const auto engine = Engine::load(kGolden / GetParam(), {.threads = 1});
  EXPECT_EQ(a.parameters(), engine->parameters());
  int64_t bytes = 0;
  for (const ModelPart& part : engine->parts()) bytes += part.bytes;
  EXPECT_EQ(a.bytes(), bytes);
  ASSERT_EQ(std::ssize(a.layers), engine->config().num_hidden_layers);
  for (const LayerArchitecture& layer : a.layers)
    EXPECT_EQ(layer.sliding, engine->config().is_sliding(layer.layer));
}

// bench/work.cc counts by parts of the model, this by tensors.
TEST_P(ArchitectureOf, CostsWhatTheBenchmarksSay) {
  const Architecture a = study_architecture(kGolden / GetParam());
  const auto engine = Engine::load(kGolden / GetParam(), {.threads = 1});
  for (const KvType type : {KvType::kF32, KvType::kQ8})
    for (const int64_t context : {1, 7, 40, 300}) {
      const Work work = work_of({.config = a.config, .parts = engine->parts(), .kv_type = type},
                                {.gen = 1, .depth = context - 1});
      EXPECT_DOUBLE_EQ(static_cast<double>(a.flops(context)), work.flops) << context;
      EXPECT_DOUBLE_EQ(static_cast<double>(a.bytes_read(type, context)), work.bytes) << context;
    }
}

TEST_P(ArchitectureOf, IsDrawn) {
  const Architecture a = study_architecture(kGolden / GetParam());
  const std::string page = render(architecture_report(a, 16), ReportFormat::kHtml);
  EXPECT_NE(page.find("modelArchitecture = {"), std::string::npos);
  EXPECT_NE(page.find("class=\"stack\""), std::string::npos);
  const auto json = to_json(a);
  EXPECT_EQ(json["layers"].size(), a.layers.size());
  EXPECT_EQ(json["layers"][0]["tensors"][1]["name"], "self_attn.q_proj");
  EXPECT_EQ(json["layers"][0]["tensors"][1]["shape"][0], a.config.q_dim());
}

INSTANTIATE_TEST_SUITE_P(Models, ArchitectureOf,
                         ::testing::Values("gemma1-mqa", "gemma2-gqa", "gemma3-v5"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Architecture, RefusesWhatIsNoModel) {
  EXPECT_THROW(study_architecture("/nowhere"), Error);
}

}  // namespace
}  // namespace lapidary
