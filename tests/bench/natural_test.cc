#include <stop_token>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/bench.h"
#include "lapidary/chat.h"
#include "lapidary/error.h"
#include "lapidary/generate.h"

namespace lapidary {
namespace {

SamplerOptions greedy() {
  SamplerOptions options;
  options.temperature = 0;
  return options;
}

std::shared_ptr<const Engine> tiny() {
  static const auto engine = Engine::load(LAPIDARY_SOURCE_DIR "/models/tiny", {.threads = 1});
  return engine;
}

std::vector<NaturalResult> measure(int64_t max_tokens) {
  std::vector<NaturalResult> results;
  measure_natural(tiny(), greedy(), max_tokens,
                  [&](const NaturalResult& r) { results.push_back(r); });
  return results;
}

TEST(Natural, AnswersAreThoseOfTheChatFormat) {
  const std::vector<NaturalResult> results = measure(12);
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].name, "short");
  EXPECT_EQ(results[1].name, "medium");
  EXPECT_EQ(results[2].name, "long");
  for (const NaturalResult& r : results) {
    const ChatMessage question{"user", r.prompt};
    const auto prompt = encode_chat(tiny()->tokenizer(), {&question, 1});
    Session session(tiny());
    const Generation made = generate(session, prompt, {.max_tokens = 12, .sampling = greedy()});
    EXPECT_EQ(r.prompt_tokens, std::ssize(prompt));
    EXPECT_EQ(r.text, made.text);
    EXPECT_EQ(r.tokens, std::ssize(made.tokens));
    EXPECT_GT(r.prefill_tokens_per_second, 0);
    EXPECT_GT(r.first_token_seconds, 0);
  }
}

// The built-in model ends its answer to the third question after a few tokens (greedily, so that
// it is the same everywhere), and talks on to the second.
TEST(Natural, TellsAnEndFromACut) {
  const std::vector<NaturalResult> results = measure(12);
  EXPECT_TRUE(results.at(2).ended);
  EXPECT_LT(results.at(2).tokens, 12);
  EXPECT_FALSE(results.at(1).ended);
  EXPECT_EQ(results.at(1).tokens, 12);
}

TEST(Natural, AStopRequestEndsItAfterTheAnswersThatAreWhole) {
  std::stop_source stop;
  int results = 0;
  const auto stop_after_one = [&](const NaturalResult&) {
    ++results;
    stop.request_stop();
  };
  EXPECT_THROW(measure_natural(tiny(), greedy(), 4, stop_after_one, Watch{{}, stop.get_token()}),
               Error);
  EXPECT_EQ(results, 1);
}

}  // namespace
}  // namespace lapidary
