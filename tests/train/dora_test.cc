// DoRA's gradients against those of PEFT in double precision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "gemma/adapter_file.h"
#include "gemma/backprop.h"
#include "gemma/load.h"
#include "io/safetensors.h"
#include "train/lora.h"

namespace lapidary {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(LAPIDARY_SOURCE_DIR) / "tests/golden";

template <class T>
std::vector<T> values(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = *file.find(name);
  std::vector<T> out(static_cast<size_t>(view.elements()));
  std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
  return out;
}

// The tokens of tools/make_blend_golden.py.
TEST(Dora, GradientsAreThoseOfPeft) {
  constexpr int64_t kTokens = 24;
  Model model = load_model(kGolden / "gemma3-v5");
  Adapter adapter = load_and_attach(kGolden / "adapters/dora", 1, model.config, model.weights);
  const AdapterWeights weights(adapter);
  ASSERT_EQ(weights.parameters().size(), 3 * adapter.matrices.size());
  std::vector<Token> tokens =
      values<int32_t>(SafetensorsFile::open(kGolden / "gemma3-v5/golden.safetensors"), "ids");
  tokens.resize(kTokens);
  std::vector<Token> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(kNoTarget);
  const std::vector<int64_t> lengths = {kTokens};

  Executor ex(best_kernels(), 2);
  Backprop backprop(ex, model.config, model.weights, kTokens, 0);
  for (const Parameter& p : weights.parameters())
    backprop.tape().track(p.value.data(), p.size(), p.grad.data());
  const Loss loss = backprop.run({tokens, targets, lengths}, 1.0f / (kTokens - 1));

  const SafetensorsFile expected =
      SafetensorsFile::open(kGolden / "adapters/gradients.safetensors");
  EXPECT_NEAR(loss.nats / static_cast<double>(loss.tokens), values<float>(expected, "loss")[0],
              1e-5);
  for (const Parameter& p : weights.parameters()) {
    const std::vector<float> want = values<float>(expected, p.name);
    ASSERT_EQ(want.size(), p.grad.size()) << p.name;
    double error = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      error += std::pow(double{p.grad[i]} - want[i], 2);
      norm += std::pow(double{want[i]}, 2);
    }
    EXPECT_LE(std::sqrt(error), 2e-5 * std::sqrt(norm)) << p.name;  // as in backprop_test.cc
  }
}

TEST(Dora, BeginsAsTheModel) {
  Model model = load_model(kGolden / "gemma3-v5");
  Adapter adapter = make_lora(model.config, {.rank = 2, .dora = true});
  attach(adapter, 1, model.config, model.weights);
  start_dora(adapter);
  for (const AdapterMatrix& m : adapter.matrices)
    for (size_t i = 0; i < m.magnitude.size(); ++i) {
      ASSERT_GT(m.magnitude[i], 0) << m.target;
      ASSERT_NEAR(m.magnitude[i] * m.inverse_norm[i], 1, 1e-6) << m.target;
    }
}

}  // namespace
}  // namespace lapidary
