// Activations and interventions against HF transformers (tests/golden/README.md).
#include "lapidary/activations.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/score.h"
#include "lapidary/session.h"
#include "lapidary/synth.h"

#include "base/statistics.h"
#include "io/test_files.h"
#include "study/golden_models.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

// The logits after each token, with a tap or without.
std::vector<float> logits_of(const std::shared_ptr<const Engine>& engine,
                             std::span<const Token> tokens, const Tap& tap = {}) {
  Session session(engine);
  session.set_tap(tap);
  std::vector<float> all;
  session.score(tokens, [&](int64_t, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
  });
  return all;
}

class Activations : public GoldenModel {
 protected:
  // A change at a point with the values of a tensor that stands for it in another file.
  Intervention change(const std::string& point) {
    return find_interventions(engine->config(), point).at(0);
  }
};

INSTANTIATE_TEST_SUITE_P(Models, Activations, kGoldenModels, golden_name);

TEST_P(Activations, AgreeWithTheReferenceAtEveryPoint) {
  ScratchFolder scratch;
  const std::string all[] = {"*"};
  const auto points = find_points(engine->config(), all);
  ActivationFile file(scratch.path() / "acts.safetensors", engine->config(), points,
                      std::ssize(ids));
  Session session(engine);
  session.set_tap(file.tap());
  for (size_t at = 0; at < ids.size(); at += 7)  // in pieces, as a conversation comes
    session.append(std::span(ids).subspan(at, std::min<size_t>(7, ids.size() - at)));
  file.finish();
  const SafetensorsFile got = SafetensorsFile::open(scratch.path() / "acts.safetensors");
  size_t compared = 0;
  for (const NamedTensor& expected : golden->tensors()) {
    if (!expected.name.starts_with("blocks.") && !expected.name.starts_with("hook_embed") &&
        !expected.name.starts_with("ln_final"))
      continue;
    if (expected.name.ends_with("hook_pattern")) continue;
    const TensorView* tensor = got.find(expected.name);
    ASSERT_NE(tensor, nullptr) << expected.name;
    // The reference's script writes heads side by side.
    EXPECT_EQ(tensor->shape.front(), expected.view.shape.front()) << expected.name;
    EXPECT_EQ(tensor->bytes.size(), 4 * floats(expected.view).size()) << expected.name;
    // As the logits of golden_test.cc: roundings of 2^-24 in a chain of layers.
    EXPECT_LE(relative_error(floats(*tensor), floats(expected.view)), 1e-5) << expected.name;
    ++compared;
  }
  EXPECT_GE(compared, 2u + 16 * 2);
}

TEST_P(Activations, LookingChangesNoBit) {
  int64_t seen = 0;
  const auto plain = logits_of(engine, ids);
  EXPECT_EQ(plain, logits_of(engine, ids, [&](const Activation& a) { seen += a.rows; }));
  const int64_t points = 2 + 16 * engine->config().num_hidden_layers;
  EXPECT_EQ(seen, points * std::ssize(ids));
}

TEST_P(Activations, AHeadSetToZeroAgreesWithTheReference) {
  const int last = engine->config().num_hidden_layers - 1;
  const auto changes =
      find_interventions(engine->config(), fmt::format("blocks.{}.attn.hook_z:1", last));
  EXPECT_LE(relative_error(logits_of(engine, ids, intervening(changes)),
                           floats(*golden->find("logits.zero_head"))),
            1e-5);
}

TEST_P(Activations, AnAddedVectorAgreesWithTheReference) {
  Intervention steer = change("blocks.0.hook_resid_post");
  steer.kind = Intervention::Kind::kAdd;
  steer.values = floats(*golden->find("steer"));
  const auto expected = floats(*golden->find("logits.steered"));
  EXPECT_LE(relative_error(logits_of(engine, ids, intervening({steer})), expected), 1e-5);
  steer.strength = 0.5f;
  EXPECT_GE(relative_error(logits_of(engine, ids, intervening({steer})), expected), 0.01);
}

TEST_P(Activations, ReplacingAllOfThemByThoseOfAnotherTextGivesItsLogits) {
  std::vector<Token> other = ids;
  std::reverse(other.begin() + 1, other.end());
  ScratchFolder scratch;
  const std::string last[] = {
      fmt::format("blocks.{}.hook_resid_post", engine->config().num_hidden_layers - 1)};
  const auto points = find_points(engine->config(), last);
  ActivationFile file(scratch.path() / "other.safetensors", engine->config(), points,
                      std::ssize(other));
  const auto expected = logits_of(engine, other, file.tap());
  file.finish();
  Intervention patch = change(last[0]);
  read_values({&patch, 1}, scratch.path() / "other.safetensors", false);
  EXPECT_EQ(logits_of(engine, ids, intervening({patch})), expected);
  Session session(engine);
  session.set_tap(intervening({patch}));
  for (size_t at = 0; at < ids.size(); at += 7)  // the same in pieces
    session.append(std::span(ids).subspan(at, std::min<size_t>(7, ids.size() - at)));
  EXPECT_TRUE(
      std::ranges::equal(session.logits(), std::span(expected).last(session.logits().size())));
}

TEST_P(Activations, AnEffectIsWhatTheLogitsSay) {
  const Tap tap = intervening(find_interventions(engine->config(), "blocks.*.hook_mlp_out"));
  const Effect effect = effect_of(engine, ids, tap);
  const auto before = logits_of(engine, ids), after = logits_of(engine, ids, tap);
  const auto vocabulary = static_cast<size_t>(engine->config().vocab_size);
  double nll[2] = {}, same = 0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    size_t top[2] = {};
    for (int k = 0; k < 2; ++k) {
      const float* row = (k == 0 ? before : after).data() + i * vocabulary;
      double sum = 0;
      for (size_t v = 0; v < vocabulary; ++v) {
        sum += std::exp(double{row[v]});
        if (row[v] > row[top[k]]) top[k] = v;
      }
      nll[k] += (std::log(sum) - row[ids[i + 1]]) / static_cast<double>(ids.size() - 1);
    }
    same += top[0] == top[1] ? 1 : 0;
  }
  EXPECT_EQ(effect.predicted, std::ssize(ids) - 1);
  // The effect adds up e^logit in f32.
  EXPECT_NEAR(effect.nll_before, nll[0], 1e-6);
  EXPECT_NEAR(effect.nll_after, nll[1], 1e-6);
  EXPECT_NEAR(effect.top1, same / static_cast<double>(ids.size() - 1), 1e-12);
  EXPECT_GT(effect.kld, 0);
  double gain = 0;
  for (const double g : effect.gain_by_token) gain += g / static_cast<double>(ids.size() - 1);
  EXPECT_NEAR(gain, nll[1] - nll[0], 1e-6);
}

// A vocabulary so large that the logits of the text are not all kept at once.
TEST(Effects, OfATextInPartsAreThoseOfTheWhole) {
  const ScratchFolder scratch;
  const fs::path folder = scratch.path() / "m";
  synthesize(with_overrides(
                 preset("gemma-3-270m"),
                 {.layers = 1, .hidden = 32, .ffn = 32, .heads = 1, .kv_heads = 1, .head_dim = 32}),
             {}, folder);
  const auto engine = Engine::load(folder, {.compute = Compute::kExact, .threads = 2});
  const int64_t parts = 90 * int64_t{engine->config().vocab_size} * 4 / (int64_t{64} << 20);
  ASSERT_GE(parts, 1);
  std::vector<Token> ids = {2};
  while (ids.size() < 90) ids.push_back(static_cast<Token>(1000 * ids.size()));
  const Tap tap = intervening(find_interventions(engine->config(), "blocks.0.hook_mlp_out"));
  const Effect effect = effect_of(engine, ids, tap);
  ASSERT_EQ(effect.predicted, 89);
  Session before(engine), after(engine);
  after.set_tap(tap);
  EXPECT_NEAR(effect.nll_before, *score(before, ids).nll, 1e-9);
  EXPECT_NEAR(effect.nll_after, *score(after, ids).nll, 1e-9);
  EXPECT_NE(effect.nll_before, effect.nll_after);
}

TEST(Interventions, TakeAHeadsColumnsAndMeans) {
  const auto engine = Engine::load(kTiny, {.compute = Compute::kExact});
  const Config& c = engine->config();
  const Intervention head = find_interventions(c, "blocks.2.attn.hook_q:1").at(0);
  EXPECT_EQ(head.first_col, c.head_dim);
  EXPECT_EQ(head.cols, c.head_dim);
  ScratchFolder scratch;
  const auto point = find_points(c, std::vector<std::string>{"blocks.2.attn.hook_q"});
  const std::vector<Token> ids = {2, 100, 200, 300};
  std::vector<float> sums(static_cast<size_t>(c.q_dim()));
  ActivationFile file(scratch.path() / "a.safetensors", c, point, std::ssize(ids));
  Session session(engine);
  session.set_tap([&, keep = file.tap()](const Activation& a) {
    keep(a);
    if (!point[0].is(a)) return;
    for (int64_t i = 0; i < a.rows; ++i)
      for (size_t k = 0; k < sums.size(); ++k) sums[k] += a.row(i)[k];
  });
  session.append(ids);
  file.finish();
  Intervention mean = head;
  read_values({&mean, 1}, scratch.path() / "a.safetensors", true);
  ASSERT_EQ(std::ssize(mean.values), c.head_dim);
  for (size_t k = 0; k < mean.values.size(); ++k)
    EXPECT_NEAR(mean.values[k], sums[k + static_cast<size_t>(c.head_dim)] / 4, 1e-5);
}

TEST(Interventions, SayWhatIsWrong) {
  const auto engine = Engine::load(kTiny, {});
  const Config& c = engine->config();
  const auto points = [&](const char* pattern) {
    return error_of([&] { find_points(c, std::vector<std::string>{pattern}); });
  };
  EXPECT_NE(points("blocks.99.hook_resid_post").find("no point of this model matches blocks.99"),
            std::string::npos);
  const auto heads = [&](const char* text) {
    return error_of([&] { find_interventions(c, text); });
  };
  EXPECT_NE(heads("blocks.0.attn.hook_z:64").find("heads, counted from 0"), std::string::npos);
  EXPECT_NE(heads("blocks.0.hook_resid_post:0").find("has no heads"), std::string::npos);
  EXPECT_NE(heads("blocks.0.attn.hook_k:2").find("has 2 heads"), std::string::npos);
  EXPECT_NE(heads("blocks.0.attn.hook_z:x").find("number of a head"), std::string::npos);

  ScratchFolder scratch;
  const fs::path path = scratch.path() / "a.safetensors";
  SafetensorsWriter writer(path, {{"blocks.0.hook_resid_post", DType::kF32, {3}}});
  writer.write(std::as_bytes(std::span<const float>(std::vector<float>{1, 2, 3})));
  writer.finish();
  Intervention change = find_interventions(c, "blocks.0.hook_resid_post").at(0);
  EXPECT_NE(error_of([&] {
              read_values({&change, 1}, path, false);
            }).find("shape [3], expected"),
            std::string::npos);
  change = find_interventions(c, "blocks.1.hook_resid_post").at(0);
  EXPECT_NE(error_of([&] {
              read_values({&change, 1}, path, false);
            }).find("no tensor blocks.1."),
            std::string::npos);
}

TEST(Taps, ArePerSessionAndNotOfForks) {
  const auto engine = Engine::load(kTiny, {});
  const std::vector<Token> a_ids = {2, 10, 20, 30}, b_ids = {2, 40, 50};
  int64_t rows = 0, first = -1;
  Session a(engine), b(engine);
  b.set_tap([&](const Activation& seen) {
    if (seen.point != "hook_embed") return;
    rows += seen.rows;
    first = seen.position;
  });
  const StepItem items[] = {{&a, a_ids}, {&b, b_ids}};
  engine->step(items);
  EXPECT_EQ(rows, 3);
  EXPECT_EQ(first, 0);
  b.append(std::vector<Token>{60});
  EXPECT_EQ(rows, 4);
  EXPECT_EQ(first, 3);
  b.fork().append(std::vector<Token>{70});
  EXPECT_EQ(rows, 4);
}

}  // namespace
}  // namespace lapidary
