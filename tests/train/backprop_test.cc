// Gradients of whole models against those of the reference in double precision.
#include "gemma/backprop.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "gemma/load.h"
#include "io/safetensors.h"
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
  Executor ex;

  explicit Case(const std::string& name, int threads = 1, const Kernels& kernels = best_kernels())
      : model(load_model(golden(name))),
        weights(model.config, model.weights, everything),
        tokens(values<int32_t>(SafetensorsFile::open(golden(name) / "golden.safetensors"), "ids")),
        targets(tokens.begin() + 1, tokens.end()),
        lengths{std::ssize(tokens)},
        ex(kernels, threads) {
    targets.push_back(kNoTarget);
  }
  Documents documents() const { return {tokens, targets, lengths}; }
  Backprop backprop(int checkpoint_layers) {
    return Backprop(ex, model.config, model.weights, std::ssize(tokens), checkpoint_layers);
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

class BackpropTest : public ::testing::TestWithParam<const char*> {};

TEST_P(BackpropTest, GradientsAreThoseOfTheReference) {
  Case c(GetParam());
  const SafetensorsFile expected =
      SafetensorsFile::open(golden(GetParam()) / "gradients.safetensors");
  Loss loss;
  c.gradients(0, &loss);
  EXPECT_NEAR(loss.nats / static_cast<double>(loss.tokens), values<float>(expected, "loss")[0],
              1e-5);
  for (const Parameter& p : c.weights.parameters()) {
    const std::vector<float> want = values<float>(expected, "grad." + p.name);
    ASSERT_EQ(want.size(), p.grad.size()) << p.name;
    double error = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      error += std::pow(double{p.grad[i]} - want[i], 2);
      norm += std::pow(double{want[i]}, 2);
    }
    // A few hundred roundings in a row, of half an ulp each, add up as a random walk.
    EXPECT_LE(std::sqrt(error), 2e-5 * std::sqrt(norm)) << p.name;
  }
}

// Backprop and AdamW as the two move a model together, against tools/make_gradient_golden.py.
//
// A step of AdamW moves value i by lr times a quotient of averages of its gradients. An error e_i
// of the gradient g_i changes that by at most about e_i / |g_i|, and the loss, to first order, by
// g_i times it: by lr e_i, however small g_i is. Errors of rounding have no common sign and add up
// over the values as a random walk, to lr |e| with |e| <= 2e-5 |g| as above: that is how much a
// step may add to how far the losses are apart, beside the 1e-5 of a loss itself. Measured: at most
// 4e-6.
TEST_P(BackpropTest, TwentyStepsOfAdamWAreThoseOfTheReference) {
  constexpr double kRate = 1e-3;
  Case c(GetParam());
  const SafetensorsFile expected =
      SafetensorsFile::open(golden(GetParam()) / "gradients.safetensors");
  const std::vector<float> losses = values<float>(expected, "adamw.loss");
  ASSERT_EQ(losses.size(), 20u);
  const std::span<const Parameter> parameters = c.weights.parameters();
  const auto optimizer = make_optimizer({.weight_decay = 0.1}, parameters);
  double bound = 1e-5;
  for (size_t step = 0; step < losses.size(); ++step) {
    Loss loss;
    c.gradients(0, &loss);
    const double mean = loss.nats / static_cast<double>(loss.tokens);
    EXPECT_NEAR(mean, losses[step], bound) << "step " << step;
    bound += kRate * 2e-5 * gradient_norm(parameters, c.ex.pool());
    optimizer->step(parameters, kRate, c.ex);
  }
  EXPECT_LT(losses.back(), 0.7f * losses.front());  // it went a long way
}

TEST_P(BackpropTest, CheckpointsAndThreadsChangeNoBit) {
  const std::vector<float> expected = Case(GetParam()).gradients(0);
  EXPECT_EQ(Case(GetParam()).gradients(1), expected);
  EXPECT_EQ(Case(GetParam()).gradients(2), expected);
  EXPECT_EQ(Case(GetParam(), 3).gradients(0), expected);
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
