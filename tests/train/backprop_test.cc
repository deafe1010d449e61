// Gradients of whole models against those of the reference in double precision.
#include "gemma/backprop.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/statistics.h"
#include "gemma/load.h"
#include "io/safetensors.h"
#include "train/bf16_operands.h"
#include "train/full_weights.h"
#include "train/gradients.h"
#include "train/optimizer.h"

namespace lapidary {
namespace {

std::filesystem::path golden(const std::string& model) {
  return std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden" / model;
}

template <class T>
std::vector<T> values(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = *file.find(name);
  std::vector<T> out(static_cast<size_t>(view.elements()));
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return out;
}

bool everything(std::string_view) {
  return true;
}

// A model whose weights are all trained, and the tokens of its golden file as one document.
struct Case {
  Model model;
  FullWeights weights;
  std::vector<Token> tokens, targets;
  std::vector<int64_t> lengths;
  Operands operands;
  Executor ex;

  explicit Case(const std::string& name, int threads = 1, Operands operands_in = Operands::kFloat)
      : model(load_model(golden(name))),
        weights(model.config, model.weights, everything),
        tokens(values<int32_t>(SafetensorsFile::open(golden(name) / "golden.safetensors"), "ids")),
        targets(tokens.begin() + 1, tokens.end()),
        lengths{std::ssize(tokens)},
        operands(operands_in),
        ex(operands == Operands::kFloat ? best_kernels() : bf16_kernels(), threads) {
    targets.push_back(kNoTarget);
  }
  Documents documents() const { return {tokens, targets, lengths}; }
  Backprop backprop(int checkpoint_layers) {
    return Backprop(ex, model.config, model.weights, std::ssize(tokens), checkpoint_layers,
                    operands);
  }
  // The gradients of the mean loss, one parameter after another.
  std::vector<float> gradients(int checkpoint_layers, Loss* loss = nullptr) {
    Backprop pass = backprop(checkpoint_layers);
    weights.track(pass.tape());
    for (const Parameter& p : weights.parameters()) std::fill(p.grad.begin(), p.grad.end(), 0.0f);
    const auto targets_count = static_cast<float>(tokens.size() - 1);
    const Loss got = pass.run(documents(), 1 / targets_count);
    if (loss != nullptr) *loss = got;
    std::vector<float> all;
    for (const Parameter& p : weights.parameters())
      all.insert(all.end(), p.grad.begin(), p.grad.end());
    return all;
  }
};

// |got - want| / |want| of the gradients of a parameter.
double relative_difference(const Parameter& p, const SafetensorsFile& expected) {
  return relative_error(p.grad, values<float>(expected, "grad." + p.name));
}

class BackpropTest : public ::testing::TestWithParam<const char*> {};

TEST_P(BackpropTest, GradientsAreThoseOfTheReference) {
  Case c(GetParam());
  const SafetensorsFile expected =
      SafetensorsFile::open(golden(GetParam()) / "gradients.safetensors");
  Loss loss;
  c.gradients(0, &loss);
  EXPECT_NEAR(loss.nats / static_cast<double>(loss.tokens), values<float>(expected, "loss")[0],
              1e-5);
  // A few hundred roundings in a row, of half an ulp each, add up as a random walk.
  for (const Parameter& p : c.weights.parameters())
    EXPECT_LE(relative_difference(p, expected), 2e-5) << p.name;
}

TEST_P(BackpropTest, GradientsOfBf16OperandsAreNearThoseOfTheReference) {
  Case c(GetParam(), 1, Operands::kBFloat16);
  const SafetensorsFile expected =
      SafetensorsFile::open(golden(GetParam()) / "gradients.safetensors");
  c.gradients(0);
  for (const Parameter& p : c.weights.parameters()) {
    const double difference = relative_difference(p, expected);
    EXPECT_LE(difference, bf16_bound(c.model.config)) << p.name;
    EXPECT_GT(difference, 2e-5) << p.name;  // they were rounded
  }
}

// Twenty steps of Backprop and AdamW as the two move a model together, as
// tools/make_gradient_golden.py has PyTorch take them.
struct Step {
  double loss, gradient_norm;
};
constexpr double kRate = 1e-3;
std::vector<Step> steps_of_adamw(const std::string& model, Operands operands) {
  Case c(model, 1, operands);
  const std::span<const Parameter> parameters = c.weights.parameters();
  const auto optimizer = make_optimizer({.weight_decay = 0.1}, parameters);
  std::vector<Step> steps;
  for (int i = 0; i < 20; ++i) {
    Loss loss;
    c.gradients(0, &loss);
    steps.push_back(
        {loss.nats / static_cast<double>(loss.tokens), gradient_norm(parameters, c.ex.pool())});
    optimizer->step(parameters, kRate, c.ex);
  }
  return steps;
}
std::vector<float> losses_of_the_reference(const std::string& model) {
  return values<float>(SafetensorsFile::open(golden(model) / "gradients.safetensors"),
                       "adamw.loss");
}

// A step of AdamW moves value i by lr times a quotient of averages of its gradients. An error e_i
// of the gradient g_i changes that by at most about e_i / |g_i|, and the loss, to first order, by
// g_i times it: by lr e_i, however small g_i is. Errors of rounding have no common sign and add up
// over the values as a random walk, to lr |e| with |e| <= 2e-5 |g| as above: that is how much a
// step may add to how far the losses are apart, beside the 1e-5 of a loss itself. Measured: at most
// 4e-6.
TEST_P(BackpropTest, TwentyStepsOfAdamWAreThoseOfTheReference) {
  const std::vector<float> losses = losses_of_the_reference(GetParam());
  const std::vector<Step> steps = steps_of_adamw(GetParam(), Operands::kFloat);
  ASSERT_EQ(losses.size(), steps.size());
  double bound = 1e-5;
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_NEAR(steps[i].loss, losses[i], bound) << "step " << i;
    bound += kRate * 2e-5 * steps[i].gradient_norm;
  }
  EXPECT_LT(losses.back(), 0.7f * losses.front());  // it went a long way
}

// -log p changes by at most sqrt(2) (1 - p) times what two logits do, and 1 - p <= -log p: logits
// that are off by a share of themselves, and are of the size of one, move a loss by about that
// share of itself. It is the bound of the gradients, for the way of the weights. Measured: at
// most 1.8 %.
TEST_P(BackpropTest, TwentyStepsOfAdamWWithBf16OperandsAreNearThoseOfTheReference) {
  const std::vector<float> losses = losses_of_the_reference(GetParam());
  const std::vector<Step> steps = steps_of_adamw(GetParam(), Operands::kBFloat16);
  ASSERT_EQ(losses.size(), steps.size());
  const double bound = bf16_bound(Case(GetParam()).model.config);
  for (size_t i = 0; i < steps.size(); ++i)
    EXPECT_NEAR(steps[i].loss, losses[i], bound * losses[i]) << "step " << i;
  EXPECT_LT(steps.back().loss, 0.7 * steps.front().loss);
}

TEST_P(BackpropTest, CheckpointsAndThreadsChangeNoBit) {
  for (const Operands operands : {Operands::kFloat, Operands::kBFloat16}) {
    const std::vector<float> expected = Case(GetParam(), 1, operands).gradients(0);
    EXPECT_EQ(Case(GetParam(), 1, operands).gradients(1), expected);
    EXPECT_EQ(Case(GetParam(), 1, operands).gradients(2), expected);
    EXPECT_EQ(Case(GetParam(), 3, operands).gradients(0), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, BackpropTest,
                         ::testing::Values("gemma1-mqa", "gemma2-gqa", "gemma3-v5"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lapidary
