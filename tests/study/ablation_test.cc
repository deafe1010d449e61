// Layers and heads left out, against the same changes made at taps of a session.
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/activations.h"
#include "lapidary/error.h"
#include "lapidary/layer_ablation.h"

#include "generate/layer_walk.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

std::vector<Token> text_of(int64_t length, int64_t vocabulary) {
  std::vector<Token> ids = {2};
  while (std::ssize(ids) < length)
    ids.push_back(static_cast<Token>(5 + std::ssize(ids) * std::ssize(ids) % (vocabulary - 5)));
  return ids;
}

Effect effect_of_zeros(const std::shared_ptr<const Engine>& engine, std::span<const Token> ids,
                       std::initializer_list<std::string> points) {
  std::vector<Intervention> changes;
  for (const std::string& point : points)
    for (Intervention& change : find_interventions(engine->config(), point))
      changes.push_back(std::move(change));
  return effect_of(engine, ids, intervening(changes));
}

struct Case {
  const char* name;
  fs::path model;
  Compute compute;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}
class Ablations : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Models, Ablations,
                         ::testing::Values(Case{"gemma1", kGolden / "gemma1-mqa", Compute::kExact},
                                           Case{"gemma2", kGolden / "gemma2-gqa", Compute::kFast},
                                           Case{"gemma3", kGolden / "gemma3-v5", Compute::kExact},
                                           Case{"quantised", kGolden / "mlx-4bit-g64",
                                                Compute::kFast}),
                         [](const auto& test) { return std::string(test.param.name); });

// Sums of rounding alone lie between: likelihoods are added up over other slices.
constexpr double kSame = 1e-9;

TEST_P(Ablations, AreTheChangesAtASessionsTaps) {
  const auto engine = Engine::load(GetParam().model, {.compute = GetParam().compute, .threads = 2});
  const Config& config = engine->config();
  const std::vector<Token> ids = text_of(40, config.vocab_size);
  const AblationStudy study = ablate(engine, ids, Ablate::kAll);
  ASSERT_EQ(std::ssize(study.layers), config.num_hidden_layers);
  ASSERT_EQ(std::ssize(study.heads), config.num_hidden_layers * config.num_attention_heads);
  EXPECT_EQ(study.predicted, std::ssize(ids) - 1);
  for (const Ablation& a : study.layers) {
    const std::string block = fmt::format("blocks.{}.", a.layer);
    const Effect effect =
        effect_of_zeros(engine, ids, {block + "hook_attn_out", block + "hook_mlp_out"});
    EXPECT_NEAR(a.nll, effect.nll_after, kSame) << a.layer;
    EXPECT_NEAR(study.nll, effect.nll_before, kSame);
    EXPECT_NEAR(a.top1, effect.top1, kSame);
    EXPECT_GT(std::abs(a.nll - study.nll), 1e-6);
  }
  for (const Ablation& a : study.heads) {
    const Effect effect =
        effect_of_zeros(engine, ids, {fmt::format("blocks.{}.attn.hook_z:{}", a.layer, a.head)});
    EXPECT_NEAR(a.nll, effect.nll_after, kSame) << a.layer << " " << a.head;
    EXPECT_NEAR(a.top1, effect.top1, kSame);
  }
}

TEST(Ablation, OfATextOfSeveralChunksDoesNotDependOnThreads) {
  std::vector<double> before;
  for (const int threads : {1, 3}) {
    const auto engine = Engine::load(kTiny, {.threads = threads});
    const std::vector<Token> ids = text_of(600, engine->config().vocab_size);
    int64_t last = 0, total = 0;
    const Watch watch{[&](int64_t done, int64_t of) {
                        EXPECT_GT(done, last);
                        last = done, total = of;
                      },
                      {}};
    const AblationStudy study = ablate(engine, ids, Ablate::kLayers, watch);
    EXPECT_EQ(last, total);
    EXPECT_TRUE(study.heads.empty());
    std::vector<double> losses;
    for (const Ablation& a : study.layers) losses.push_back(a.nll);
    if (!before.empty()) {
      EXPECT_EQ(losses, before);
    }
    before = losses;
    const Effect effect =
        effect_of_zeros(engine, ids, {"blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"});
    EXPECT_NEAR(study.layers[1].nll, effect.nll_after, kSame);
  }
}

TEST(Ablation, RefusesTextsThatCannotBe) {
  const auto engine = Engine::load(kGolden / "gemma3-v5", {});
  EXPECT_THROW(ablate(engine, std::vector<Token>{2}, Ablate::kLayers), Error);
  EXPECT_THROW(ablate(engine, std::vector<Token>{2, -1}, Ablate::kLayers), Error);
  const auto most = static_cast<size_t>(engine->config().max_position_embeddings);
  EXPECT_THROW(ablate(engine, std::vector<Token>(most + 1, 2), Ablate::kLayers), Error);
}

TEST(Ablation, StopsWhenAsked) {
  const auto engine = Engine::load(kGolden / "gemma3-v5", {});
  std::stop_source stop;
  int64_t reports = 0;
  const Watch watch{[&](int64_t, int64_t) {
                      if (++reports == 3) stop.request_stop();
                    },
                    stop.get_token()};
  EXPECT_THROW(ablate(engine, text_of(20, engine->config().vocab_size), Ablate::kAll, watch),
               Error);
  EXPECT_LE(reports, 4);
}

}  // namespace
}  // namespace lapidary
