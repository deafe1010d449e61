// Ways of decoding beside each other.
#include <filesystem>

#include <gtest/gtest.h>

#include "lapidary/decoding_eval.h"
#include "lapidary/error.h"
#include "lapidary/score.h"

#include "eval/reports.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";

DecodeOptions blocks(int64_t size, double gamma) {
  DecodeOptions decode{.mode = DecodeMode::kSetBlock};
  decode.set_block = {.block = size, .gamma = gamma, .mask = 4};
  return decode;
}

class DecodingEval : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kTiny / "model.safetensors")) GTEST_SKIP() << "models/tiny has no weights";
    engine = Engine::load(kTiny, {.compute = Compute::kExact, .threads = 2});
  }
  std::shared_ptr<const Engine> engine;
  std::vector<EvalPrompt> prompts = {{"1", "", "ROMEO:"}, {"2", "", "To be, or"}};
};

TEST_F(DecodingEval, HoldsTheWaysAgainstOrdinaryDecoding) {
  DecodeOptions ngram;
  ngram.mode = DecodeMode::kNgram;
  const std::vector<DecodeOptions> ways = {{}, ngram, blocks(8, 0), blocks(8, 1e9)};
  const DecodingOptions options{.max_tokens = 24, .repetitions = 2};
  const auto results = measure_decoding(engine, prompts, ways, options);
  ASSERT_EQ(results.size(), 4u);
  for (const DecodingResult& r : results) {
    EXPECT_EQ(r.prompts, 2);
    EXPECT_EQ(r.seconds.size(), 2u);
    EXPECT_GT(r.tokens_per_second(), 0);
    EXPECT_FALSE(r.accuracy);
    EXPECT_EQ(r.texts.size(), 2u);
  }
  EXPECT_EQ(results[0].identical, 2);
  EXPECT_EQ(results[1].identical, 2);
  EXPECT_EQ(results[3].identical, 0);
  EXPECT_EQ(results[1].nll, results[0].nll);
  EXPECT_EQ(results[2].forward_passes, results[2].tokens);
  EXPECT_EQ(results[3].forward_passes, 6);
  EXPECT_EQ(results[3].tokens_per_pass(), 8);
  EXPECT_GT(results[3].nll, results[0].nll);  // it never learnt to fill in blocks
  EXPECT_EQ(results[3].filling.pass, std::vector<double>(8, 1));
  ASSERT_EQ(results[2].filling.pass.size(), 8u);
  double passes = 0;
  for (const double pass : results[2].filling.pass) passes += pass;
  EXPECT_NEAR(passes, 36, 1e-9);  // 1 to 8 in any order
  EXPECT_TRUE(results[0].filling.pass.empty());

  const Report report = decoding_report(this_host(), describe_model(*engine), results);
  EXPECT_EQ(report.records.size(), 4u);
  EXPECT_EQ(report.charts.size(), 3u);
  EXPECT_EQ(report.table.rows[3][0], "set-block 8, gamma 1000000000");
}

TEST_F(DecodingEval, LikelihoodIsThatOfScoring) {
  const auto results =
      measure_decoding(engine, std::span(prompts).first(1), std::vector<DecodeOptions>{{}},
                       {.max_tokens = 24, .repetitions = 1});
  std::vector<Token> ids = engine->tokenizer().encode("ROMEO:");
  ids.insert(ids.begin(), engine->tokenizer().bos());
  Session session(engine);
  GenerateOptions greedy;
  greedy.max_tokens = 24;
  greedy.sampling.temperature = 0;
  const Generation made = generate(session, ids, greedy);
  std::vector<Token> all = ids;
  all.insert(all.end(), made.tokens.begin(), made.tokens.end());
  Session whole(engine), prompt(engine);
  const Score together = score(whole, all), before = score(prompt, ids);
  const double nats = *together.nll * static_cast<double>(together.predicted) -
                      *before.nll * static_cast<double>(before.predicted);
  EXPECT_NEAR(results[0].nll, nats / static_cast<double>(made.tokens.size()), 1e-5);
}

TEST_F(DecodingEval, CountsRightAnswers) {
  const DecodingOptions options{.max_tokens = 12, .repetitions = 1};
  const std::vector<DecodeOptions> ways = {{}, blocks(8, 0)};
  const auto texts = measure_decoding(engine, prompts, ways, options)[0].texts;
  prompts[0].completion = texts[0] + " ";
  EXPECT_EQ(measure_decoding(engine, prompts, ways, options)[0].accuracy, 1.0);
  prompts[1].completion = texts[1];
  prompts[1].completion[texts[1].find_last_not_of(" \n")] = '#';
  EXPECT_EQ(measure_decoding(engine, prompts, ways, options)[0].accuracy, 0.5);
}

TEST_F(DecodingEval, RefusesAndStops) {
  const auto measure = [&](const DecodeOptions& way, const DecodingOptions& options) {
    return measure_decoding(engine, prompts, std::vector<DecodeOptions>{{}, way}, options);
  };
  EXPECT_THROW(measure({}, {.max_tokens = 0}), Error);
  EXPECT_THROW(measure({}, {.repetitions = 0}), Error);
  EXPECT_THROW(measure(blocks(0, 1), {}), Error);
  std::stop_source source;
  source.request_stop();
  EXPECT_THROW(measure_decoding(engine, prompts, std::vector<DecodeOptions>{{}}, {},
                                Watch{{}, source.get_token()}),
               Error);
}

}  // namespace
}  // namespace lapidary
