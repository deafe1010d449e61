// Two models' differences against numpy, MLX and HF transformers, and against what was changed.
#include "lapidary/model_diff.h"

#include <cmath>
#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>

#include "lapidary/convert.h"
#include "lapidary/error.h"
#include "lapidary/synth.h"

#include "base/json.h"
#include "base/scratch_folder.h"
#include "io/output_file.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

const Json& golden() {
  static const Json json = read_json_file(kGolden / "matrices.json");
  return json;
}
std::vector<Token> golden_ids() {
  return golden()["ids"].get<std::vector<Token>>();
}

std::shared_ptr<const Engine> exact(const fs::path& model, int threads = 2) {
  return Engine::load(model, {.compute = Compute::kExact, .threads = threads});
}

// The built-in model, and what 4 bits in groups of 64 leave of it.
class Rounded : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch = std::make_unique<ScratchFolder>();
    convert_folder(kTiny, scratch->path() / "four",
                   {.bits = 4, .group_size = 64, .check = false, .threads = 2});
    a = exact(kTiny);
    b = exact(scratch->path() / "four");
  }
  static void TearDownTestSuite() {
    a = b = nullptr;
    scratch = nullptr;
  }
  static std::unique_ptr<ScratchFolder> scratch;
  static std::shared_ptr<const Engine> a, b;
};
std::unique_ptr<ScratchFolder> Rounded::scratch;
std::shared_ptr<const Engine> Rounded::a, Rounded::b;

// scale * code + bias is rounded once by one and twice by the other: by 2^-24 of a weight, of which
// the change is some 2^-4.
TEST_F(Rounded, MatricesChangeAsNumpySays) {
  const WeightDiff diff = diff_weights(*a, *b);
  const Json& matrices = golden()["models"]["tiny"];
  ASSERT_EQ(diff.matrices.size(), matrices.size());
  for (size_t i = 0; i < matrices.size(); ++i) {
    const MatrixDiff& d = diff.matrices[i];
    const Json& want = matrices[i]["at_4_bits"];
    ASSERT_EQ(d.id.name, matrices[i]["name"]);
    const auto near = [&](double got, double wanted, const char* what) {
      EXPECT_NEAR(got / wanted, 1, 1e-5) << d.id.layer << " " << d.id.name << " " << what;
    };
    near(d.norm, matrices[i]["norm"], "norm");
    near(d.size, want["weights"], "size");
    near(d.stable_rank, want["stable_rank"], "stable rank");
    near(d.effective_rank, want["effective_rank"], "effective rank");
    near(d.values.at(0), want["largest"], "largest");
    ASSERT_TRUE(d.cosine);
    EXPECT_NEAR(*d.cosine, want["cosine"], 1e-5);
    EXPECT_NEAR(d.overlap_out, want["overlap_out"], 1e-4);
    EXPECT_NEAR(d.overlap_in, want["overlap_in"], 1e-4);
    EXPECT_EQ(d.numerical_rank, std::min(d.rows, d.cols));
  }
  ASSERT_EQ(diff.others.front().name, "model.embed_tokens.weight");
  EXPECT_GT(diff.others.front().size, 0.01);
  EXPECT_EQ(diff.others.back().name, "model.norm.weight");
  EXPECT_EQ(diff.others.back().size, 0);
}

// Streams, weights and logits agree with the reference's to some 1e-5 of themselves; differences of
// two, which are a tenth of them, to ten times that of themselves.
TEST_F(Rounded, TheTextIsReadAsTheReferenceReadsIt) {
  const std::vector<Token> ids = golden_ids();
  const TextDiff diff = diff_text(a, b, ids);
  const Json& want = golden()["diff"];
  EXPECT_EQ(diff.predicted, std::ssize(ids) - 1);
  EXPECT_NEAR(diff.nll_a, want["nll_a"], 1e-5);
  EXPECT_NEAR(diff.nll_b, want["nll_b"], 1e-5);
  EXPECT_NEAR(diff.kld / want["kld"].get<double>(), 1, 1e-4);
  EXPECT_LT(diff.top1, 1);
  EXPECT_NEAR(std::accumulate(diff.gain.begin(), diff.gain.end(), 0.0) /
                  static_cast<double>(diff.predicted),
              diff.nll_b - diff.nll_a, 1e-9);
  ASSERT_EQ(diff.layers.size(), want["layers"].size());
  for (size_t i = 0; i < diff.layers.size(); ++i) {
    const LayerDiff& layer = diff.layers[i];
    const Json& reference = want["layers"][i];
    EXPECT_NEAR(layer.stream / reference["stream"].get<double>(), 1, 1e-4) << i;
    EXPECT_NEAR(layer.similarity, reference["similarity"], 1e-5) << i;
    ASSERT_EQ(layer.attention.size(), reference["attention"].size());
    for (size_t head = 0; head < layer.attention.size(); ++head)
      EXPECT_NEAR(layer.attention[head], reference["attention"][head], 1e-5) << i << " " << head;
  }
  const std::vector<double> swapped = swap_layers(a, b, ids);
  for (size_t i = 0; i < swapped.size(); ++i)
    EXPECT_NEAR(swapped[i], want["layers"][i]["swapped_nll"], 1e-5) << i;
}

TEST_F(Rounded, ThreadsAndChunksChangeNothing) {
  std::vector<Token> ids = golden_ids();
  while (ids.size() < 600) ids.push_back(ids[ids.size() - 46]);
  const TextDiff two = diff_text(a, b, ids);
  const auto c = exact(kTiny, 1), d = exact(scratch->path() / "four", 3);
  const TextDiff one = diff_text(c, d, ids);
  EXPECT_EQ(one.gain, two.gain);
  for (size_t i = 0; i < one.layers.size(); ++i) {
    EXPECT_EQ(one.layers[i].stream, two.layers[i].stream);
    EXPECT_EQ(one.layers[i].attention, two.layers[i].attention);
  }
  const WeightDiff x = diff_weights(*a, *b), y = diff_weights(*c, *d);
  for (size_t i = 0; i < x.matrices.size(); ++i)
    EXPECT_EQ(x.matrices[i].values, y.matrices[i].values);
}

TEST_F(Rounded, StopsWhenAsked) {
  std::stop_source stop;
  stop.request_stop();
  const Watch watch{{}, stop.get_token()};
  EXPECT_THROW(diff_weights(*a, *b, watch), Error);
  EXPECT_THROW(diff_text(a, b, golden_ids(), watch), Error);
  EXPECT_THROW(swap_layers(a, b, golden_ids(), watch), Error);
}

TEST(ModelDiff, OfAModelAndItselfIsNothing) {
  const auto a = exact(kGolden / "gemma2-gqa");
  const WeightDiff weights = diff_weights(*a, *a);
  for (const MatrixDiff& d : weights.matrices) {
    EXPECT_EQ(d.size, 0);
    EXPECT_EQ(d.numerical_rank, 0);
    EXPECT_FALSE(d.cosine);
    EXPECT_EQ(d.overlap_in, 1);
  }
  const std::vector<Token> ids = {2, 9, 17, 40, 9};
  const TextDiff text = diff_text(a, a, ids);
  EXPECT_EQ(text.kld, 0);
  EXPECT_EQ(text.top1, 1);
  for (const LayerDiff& layer : text.layers) {
    EXPECT_EQ(layer.stream, 0);
    EXPECT_NEAR(layer.similarity, 1, 1e-12);
    for (const double head : layer.attention) EXPECT_EQ(head, 0);
  }
  for (const double nll : swap_layers(a, a, ids)) EXPECT_NEAR(nll, text.nll_a, 1e-12);
}

TEST(ModelDiff, OfAnAdapterHasItsRankAndItsMatricesAlone) {
  const fs::path model = kGolden / "gemma3-v5", adapter = kGolden / "adapters/plain";
  const Json config = read_json_file(adapter / "adapter_config.json");
  const auto targets = config["target_modules"].get<std::vector<std::string>>();
  const auto a = exact(model);
  const auto with = [&](double strength) {
    return Engine::load(model, {.compute = Compute::kExact, .adapters = {{adapter, strength}}});
  };
  const WeightDiff whole = diff_weights(*a, *with(1)), half = diff_weights(*a, *with(0.5));
  int changed = 0;
  for (size_t i = 0; i < whole.matrices.size(); ++i) {
    const MatrixDiff& d = whole.matrices[i];
    const bool target = std::ranges::count(targets, d.id.name.substr(d.id.name.find('.') + 1)) > 0;
    EXPECT_EQ(d.size > 0, target) << d.id.name;
    if (!target) continue;
    ++changed;
    EXPECT_EQ(d.numerical_rank, config["r"].get<int64_t>());
    EXPECT_EQ(std::ssize(d.values), d.numerical_rank);
    EXPECT_LE(d.stable_rank, static_cast<double>(d.numerical_rank));
    EXPECT_LT(d.overlap_in, 1);
    EXPECT_NEAR(half.matrices[i].size / d.size, 0.5, 1e-6);
    EXPECT_NEAR(*half.matrices[i].cosine, *d.cosine, 1e-5);
  }
  EXPECT_GT(changed, 0);
}

TEST(ModelDiff, RefusesOtherShapesByName) {
  const auto a = exact(kGolden / "gemma2-gqa"), b = exact(kGolden / "gemma3-v5");
  const auto what = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing";
  };
  for (const std::string& message :
       {what([&] { diff_weights(*a, *b); }), what([&] { diff_text(a, b, golden_ids()); })}) {
    EXPECT_NE(message.find("model.embed_tokens.weight: [320, 64] and [300, 48]"), std::string::npos)
        << message;
    EXPECT_NE(message.find("more"), std::string::npos) << message;
  }
  // Matrices of the same shapes, which are cut into heads otherwise.
  const ScratchFolder folder;
  const fs::path wide = folder.path() / "wide", narrow = folder.path() / "narrow";
  Config config = read_config(kGolden / "gemma2-gqa");
  config.num_attention_heads = 2;
  config.head_dim = 32;
  synthesize(config, {}, wide);
  fs::copy(wide, narrow);
  Json json = read_json_file(narrow / "config.json");
  json.update({{"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"head_dim", 16}});
  write_file(narrow / "config.json", json.dump());
  const std::string heads = what([&] { diff_text(exact(wide), exact(narrow), golden_ids()); });
  EXPECT_NE(heads.find("2 heads of 32, 1 of keys and values and 4 heads of 16, 2"),
            std::string::npos)
      << heads;
  EXPECT_NE(what([&] { diff_text(a, a, std::vector<Token>{2}); }).find("at least two"),
            std::string::npos);
}

}  // namespace
}  // namespace lapidary
