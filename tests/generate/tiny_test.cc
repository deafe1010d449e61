// The built-in model, made by HF transformers, continues as transformers does, token for token.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/generate.h"
#include "lapidary/session.h"

#include "base/json.h"
#include "kernels/kernels.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = LAPIDARY_SOURCE_DIR;

class TinyModel : public ::testing::Test {
 protected:
  static std::shared_ptr<const Engine> load(EngineOptions options) {
    return Engine::load(kRoot / "models/tiny", options);
  }
  void TearDown() override { ::unsetenv("LAPIDARY_ISA"); }

  const Json golden = read_json_file(kRoot / "tests/golden/tiny/greedy.json");
};

TEST_F(TinyModel, FiveGreedyContinuationsOf200TokensEqualTheReference) {
  for (const Kernels* table : supported_kernels()) {
    ::setenv("LAPIDARY_ISA", std::string(table->isa).c_str(), 1);
    const auto engine = load({.compute = Compute::kExact, .threads = 2});
    ASSERT_EQ(golden["prompts"].size(), 5u);
    for (const Json& prompt : golden["prompts"]) {
      if (table->isa == "ref" && &prompt != &golden["prompts"][0]) break;  // ref takes seconds each
      std::vector<Token> ids{engine->tokenizer().bos()};
      const auto text = engine->tokenizer().encode(prompt["prompt"].get<std::string>());
      ids.insert(ids.end(), text.begin(), text.end());
      EXPECT_EQ(ids, prompt["prompt_ids"].get<std::vector<Token>>());
      Session session(engine);
      GenerateOptions options{.max_tokens = 200, .ignore_eos = true};
      options.sampling.temperature = 0;
      const Generation generation = generate(session, ids, options);
      ASSERT_EQ(prompt["tokens"].size(), 200u);
      EXPECT_EQ(generation.tokens, prompt["tokens"].get<std::vector<Token>>()) << table->isa;
    }
  }
}

TEST_F(TinyModel, LossOfATextEqualsTheReference) {
  const auto ids = golden["nll_ids"].get<std::vector<Token>>();
  const auto expected = golden["nll"].get<std::vector<double>>();
  ASSERT_EQ(expected.size() + 1, ids.size());
  Session session(load({.compute = Compute::kExact}));
  session.score(ids, [&](int64_t t, std::span<const float> logits) {
    const auto i = static_cast<size_t>(t);
    if (i + 1 == ids.size()) return;
    double largest = -INFINITY, sum = 0;
    for (float x : logits) largest = std::max(largest, double{x});
    for (float x : logits) sum += std::exp(x - largest);
    const double nll = largest + std::log(sum) - logits[static_cast<size_t>(ids[i + 1])];
    // Logits of size 10 to 20 in f32, off by about 1e-6 of themselves on either side.
    EXPECT_NEAR(nll, expected[i], 1e-4) << "token " << i;
  });
}

}  // namespace
}  // namespace lapidary
