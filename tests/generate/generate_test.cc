#include "lapidary/generate.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/synth.h"

#include "base/scratch_folder.h"
#include "generate/small_models.h"
#include "generate/stop_matcher.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

struct Matched {
  std::string text;
  bool stopped;
  bool operator==(const Matched&) const = default;
};

// What comes out when `text` goes in `step` bytes at a time.
Matched match(const std::vector<std::string>& stops, const std::string& text, size_t step) {
  StopMatcher matcher(stops);
  std::string out;
  for (size_t i = 0; i < text.size(); i += step) out += matcher.put(text.substr(i, step));
  out += matcher.finish();
  return {out, matcher.stopped()};
}

TEST(StopMatcher, TheSameHoweverTheTextIsCut) {
  struct Case {
    std::vector<std::string> stops;
    std::string text;
    Matched expected;
  };
  const std::vector<Case> cases = {
      {{}, "anything", {"anything", false}},
      {{"END"}, "one END two", {"one ", true}},
      {{"END"}, "one EN", {"one EN", false}},
      {{"END"}, "EEND", {"E", true}},
      {{"aab"}, "aaab", {"a", true}},
      {{"abab"}, "abacabab", {"abac", true}},
      {{"abcd", "bc"}, "xabcd", {"xa", true}},  // complete first
      {{"abc", "bc"}, "xabc", {"x", true}},     // the longest of those that end together
      {{"\n\n", "\n"}, "a\n\nb", {"a", true}},
      {{"é"}, "caf\xc3\xa8 caf\xc3\xa9!", {"caf\xc3\xa8 caf", true}},
      {{"🙂🙂"}, "a🙂b🙂🙂", {"a🙂b", true}},
  };
  for (const Case& c : cases)
    for (size_t step = 1; step <= c.text.size(); ++step)
      EXPECT_EQ(match(c.stops, c.text, step), c.expected) << c.text << " by " << step;
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"<end>", "dog"});
  EXPECT_EQ(matcher.put("cat <e"), "cat ");
  EXPECT_EQ(matcher.put("n"), "");
  EXPECT_EQ(matcher.put("o do"), "<eno ");
  EXPECT_EQ(matcher.put("ve"), "dove");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.put("a dog barks"), "a ");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.put("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

// A small random model with the built-in tokenizer: what it says means nothing, but it says it.
class Generate : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<ScratchFolder>();
    const fs::path folder = scratch_->path() / "model";
    const fs::path tiny = LAPIDARY_SOURCE_DIR "/models/tiny";
    const int vocab = Tokenizer::load(tiny).size();
    synthesize(
        small_config("gemma-3-270m",
                     {.layers = 2, .hidden = 64, .ffn = 64, .vocab = vocab + 8, .window = 16}),
        {}, folder);
    fs::copy(tiny / "tokenizer.json", folder / "tokenizer.json");
    EngineOptions options;
    options.threads = 2;
    engine_ = Engine::load(folder, options);
  }
  static void TearDownTestSuite() {
    engine_.reset();
    scratch_.reset();
  }

  static std::vector<Token> prompt() {
    std::vector<Token> ids = {engine_->tokenizer().bos()};
    for (const Token id : engine_->tokenizer().encode("Once upon a time")) ids.push_back(id);
    return ids;
  }
  static GenerateOptions options(int64_t n) {
    GenerateOptions o;
    o.max_tokens = n;
    o.sampling.top_k = 0;
    o.sampling.top_p = 1;
    return o;
  }

  static inline std::unique_ptr<ScratchFolder> scratch_;
  static inline std::shared_ptr<const Engine> engine_;
};

TEST_F(Generate, MakesWhatWasAskedFor) {
  Session session(engine_, 64);
  std::string streamed;
  const auto made =
      generate(session, prompt(), options(20), [&](std::string_view piece) { streamed += piece; });
  EXPECT_EQ(made.tokens.size(), 20u);
  EXPECT_EQ(made.finish_reason, FinishReason::kLength);
  EXPECT_EQ(made.text, streamed);
  EXPECT_EQ(made.text, engine_->tokenizer().decode(made.tokens));
  EXPECT_EQ(made.prompt_tokens, std::ssize(prompt()));
  EXPECT_EQ(made.cached_tokens, 0);
  EXPECT_GE(made.first_token_seconds, made.prefill_seconds);
  EXPECT_GT(made.decode_tokens_per_second(), 0);
  // The prompt goes on from what is cached and comes to the same.
  const auto again = generate(session, prompt(), options(20));
  EXPECT_EQ(again.tokens, made.tokens);
  EXPECT_GE(again.cached_tokens, std::ssize(prompt()) - 1);
  GenerateOptions other = options(20);
  other.sampling.seed = 1;
  EXPECT_NE(generate(session, prompt(), other).tokens, made.tokens);
}

TEST_F(Generate, StopsAtStopStringsAcrossTokens) {
  Session session(engine_, 64);
  const auto whole = generate(session, prompt(), options(20));
  ASSERT_GT(whole.text.size(), 10u);
  GenerateOptions o = options(20);
  // From the middle of the text, so that it spans tokens.
  o.stop = {"not in it", whole.text.substr(5, 4)};
  const auto cut = generate(session, prompt(), o);
  EXPECT_EQ(cut.finish_reason, FinishReason::kStop);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(o.stop[1])));
  EXPECT_LT(cut.tokens.size(), whole.tokens.size());
}

// What is held back comes at the end: a byte of a character, and what might have become a stop.
TEST_F(Generate, TheEndOfTheTextIsLookedThroughToo) {
  Session session(engine_, 64);
  const auto whole = generate(session, prompt(), options(20));
  GenerateOptions o = options(20);
  o.stop = {whole.text.substr(whole.text.size() - 2) + "\x01"};
  const auto held = generate(session, prompt(), o);
  EXPECT_EQ(held.text, whole.text);
  EXPECT_EQ(held.finish_reason, FinishReason::kLength);
  o = options(1);
  o.sampling.logit_bias = {{engine_->tokenizer().find("<0xE2>").value(), 1000.0f}};
  const auto broken = generate(session, prompt(), o);
  EXPECT_EQ(broken.text, "\xe2");
  EXPECT_EQ(broken.finish_reason, FinishReason::kLength);
  o.stop = {broken.text};
  const auto stopped = generate(session, prompt(), o);
  EXPECT_EQ(stopped.text, "");
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
}

// The table has rows that no piece belongs to.
TEST_F(Generate, TokensWithoutAPieceAreNeverMade) {
  const int pieces = engine_->tokenizer().size();
  ASSERT_GT(engine_->config().vocab_size, pieces);
  for (const DecodeMode mode : {DecodeMode::kPlain, DecodeMode::kSetBlock}) {
    Session session(engine_, 64);
    GenerateOptions o = options(12);
    o.ignore_eos = true;
    o.sampling.logit_bias = {{pieces, 1000.0f}};
    o.decode.mode = mode;
    const auto made = generate(session, prompt(), o);
    ASSERT_EQ(made.tokens.size(), 12u);
    for (const Token id : made.tokens) EXPECT_LT(id, pieces) << name_of(mode);
  }
}

TEST_F(Generate, EndTokensEndUnlessIgnored) {
  const std::vector<Token> ends = end_tokens(*engine_);
  ASSERT_FALSE(ends.empty());
  Session session(engine_, 64);
  GenerateOptions o = options(10);
  o.sampling.temperature = 0;
  o.sampling.logit_bias = {{ends.back(), 1000.0f}};
  auto made = generate(session, prompt(), o);
  EXPECT_EQ(made.finish_reason, FinishReason::kStop);
  EXPECT_EQ(made.tokens, std::vector<Token>{ends.back()});
  EXPECT_EQ(made.text, "");
  o.ignore_eos = true;
  made = generate(session, prompt(), o);
  EXPECT_EQ(made.finish_reason, FinishReason::kLength);
  EXPECT_EQ(made.tokens.size(), 10u);
}

TEST_F(Generate, EndsWithTheContext) {
  const int64_t n = std::ssize(prompt());
  Session session(engine_, n + 8);
  GenerateOptions o = options(-1);
  o.ignore_eos = true;
  const auto made = generate(session, prompt(), o);
  EXPECT_EQ(made.finish_reason, FinishReason::kLength);
  EXPECT_EQ(made.tokens.size(), 9u) << "the last one needs no room";
  try {
    generate(session, prompt(), options(10));
    ADD_FAILURE() << "10 tokens do not fit";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput);
    EXPECT_NE(std::string(e.what()).find("2 too many"), std::string::npos) << e.what();
  }
}

TEST_F(Generate, AStopRequestKeepsWhatWasMade) {
  Session session(engine_, 64);
  std::stop_source stop;
  int pieces = 0;
  const Watch watch{.progress = {}, .stop = stop.get_token()};
  const auto on_text = [&](std::string_view) {
    if (++pieces == 3) stop.request_stop();
  };
  const auto made = generate(session, prompt(), options(40), on_text, watch);
  EXPECT_EQ(made.finish_reason, FinishReason::kInterrupted);
  EXPECT_GE(made.tokens.size(), 3u);
  EXPECT_LT(made.tokens.size(), 40u);
  Session fresh(engine_, 64);
  const auto none = generate(fresh, prompt(), options(40), {}, watch);  // stopped before the start
  EXPECT_EQ(none.finish_reason, FinishReason::kInterrupted);
  EXPECT_TRUE(none.tokens.empty());
}

TEST_F(Generate, RefusesWhatCannotBe) {
  Session session(engine_, 64);
  EXPECT_THROW(generate(session, {}, options(1)), Error);
  EXPECT_THROW(generate(session, prompt(), options(-2)), Error);
  const auto fits = options(64 - std::ssize(prompt()));  // to the last place
  EXPECT_NO_THROW(generate(session, prompt(), fits));
  GenerateOptions o = options(1);
  o.stop = {""};
  EXPECT_THROW(generate(session, prompt(), o), Error);
  o = options(0);
  EXPECT_TRUE(generate(session, prompt(), o).tokens.empty());
}

}  // namespace
}  // namespace lapidary
