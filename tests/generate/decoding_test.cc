// Several tokens for a pass: blocks that see each other and leave nothing, guesses that change
// nothing, and Set Block Decoding over both.
#include "lapidary/decoding.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <stop_token>

#include <gtest/gtest.h>

#include "lapidary/error.h"
#include "lapidary/generate.h"

#include "base/scratch_folder.h"
#include "generate/look.h"
#include "generate/small_models.h"
#include "generate/token_runs.h"
#include "io/output_file.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
const fs::path kTiny = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";
constexpr double kInfinite = std::numeric_limits<double>::infinity();

struct Case {
  const char* model;
  KvType kv_type;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << c.model << "_" << name_of(c.kv_type);
  }
};

// Both kinds of layers, windows of 16, and a type of cache each.
class Blocks : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    engine =
        Engine::load(kGolden / GetParam().model, {.kv_type = GetParam().kv_type, .threads = 2});
    ids = random_tokens(330, engine->config().vocab_size);
    block = random_tokens(12, engine->config().vocab_size, 7);
  }
  std::span<const Token> first(size_t n) const { return std::span(ids).first(n); }

  std::shared_ptr<const Engine> engine;
  std::vector<Token> ids, block;
};

INSTANTIATE_TEST_SUITE_P(Models, Blocks,
                         ::testing::Values(Case{"gemma2-gqa", KvType::kF32},
                                           Case{"gemma3-v5", KvType::kBF16},
                                           Case{"mlx-4bit-g64", KvType::kQ8}),
                         [](const auto& model) {
                           std::string name = ::testing::PrintToString(model.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(Blocks, OfOneIsTheTokenItself) {
  for (const size_t n : {1, 15, 64, 130}) {
    Session session(engine, 1000), plain(engine, 1000);
    const Rows rows = look(session, first(n), std::span(block).first(1));
    plain.append(first(n));
    EXPECT_EQ(copy(session.logits()), copy(plain.logits())) << n;
    plain.append(std::span(block).first(1));
    EXPECT_EQ(rows.at(0), copy(plain.logits())) << n;
  }
}

TEST_P(Blocks, SeeThemselvesBothWaysAndAllBefore) {
  Session session(engine, 1000);
  const Rows rows = look(session, first(40), block);
  const std::vector<float> before = copy(session.logits());
  std::vector<Token> other = block;
  other.back() = (other.back() + 1) % engine->config().vocab_size;
  const Rows changed = look(session, {}, other);
  EXPECT_NE(rows.at(0), changed.at(0));  // the first place sees the last
  EXPECT_EQ(before, copy(session.logits()));
  EXPECT_EQ(look(session, {}, block), rows);
  std::vector<Token> otherwise(ids.begin(), ids.begin() + 40);
  otherwise[38] = (otherwise[38] + 1) % engine->config().vocab_size;
  Session another(engine, 1000);
  EXPECT_NE(look(another, otherwise, block).at(0), rows.at(0));
}

TEST_P(Blocks, LeaveNothing) {
  Session session(engine, 1000), plain(engine, 1000);
  for (size_t at = 0; at < 290;) {
    const size_t n = 1 + at % 29;
    look(session, std::span(ids).subspan(at, n), block);
    look(session, {}, block);
    at += n;
    plain.append(std::span(ids).subspan(static_cast<size_t>(plain.length()), n));
    ASSERT_EQ(copy(session.logits()), copy(plain.logits())) << at;
    ASSERT_EQ(session.kv_bytes(), plain.kv_bytes()) << at;
  }
  for (int layer = 0; layer < engine->config().num_hidden_layers; ++layer) {
    const auto kept = session.kv_blocks(layer), wanted = plain.kv_blocks(layer);
    ASSERT_EQ(kept.size(), wanted.size());
    for (size_t i = 0; i + 1 < kept.size(); ++i)  // the last has places that nothing is in
      EXPECT_EQ(std::memcmp(kept[i].data(), wanted[i].data(), kept[i].size()), 0) << layer;
  }
}

TEST_P(Blocks, ShareAStepWithoutChangingABit) {
  Session alone(engine, 1000), a(engine, 1000), b(engine, 1000), c(engine, 1000);
  const Rows wanted = look(alone, first(33), block);
  std::map<char, Rows> got;
  const std::vector<int64_t> all = up_to(block.size());
  const auto item = [&](Session& session, char name, size_t n) {
    StepItem made{.session = &session, .tokens = first(n)};
    made.block = block;
    made.block_rows = all;
    made.on_block = [&got, name](int64_t i, std::span<const float> logits) {
      got[name][i].assign(logits.begin(), logits.end());
    };
    return made;
  };
  const StepItem items[] = {item(a, 'a', 33), {&b, first(50)}, item(c, 'c', 33)};
  engine->step(items);
  EXPECT_EQ(got['a'], wanted);
  EXPECT_EQ(got['c'], wanted);
  EXPECT_EQ(b.length(), 50);
}

TEST_P(Blocks, ComeWholeWhateverTheChunk) {
  Session session(engine, 1000);
  const Rows wanted = look(session, first(50), block);
  const auto small =
      Engine::load(kGolden / GetParam().model, {.kv_type = GetParam().kv_type, .chunk = 13});
  Session pieces(small, 1000);
  EXPECT_EQ(look(pieces, first(50), block), wanted);
  EXPECT_THROW(look(pieces, {}, random_tokens(14, 100)), Error);
}

TEST_P(Blocks, AndTokensStayWhoeverThrowsAtTheirLogits) {
  Session session(engine, 1000);
  const StepItem item{.session = &session,
                      .tokens = first(20),
                      .on_token = [](int64_t, std::span<const float>) { throw 1; }};
  EXPECT_THROW(engine->step({&item, 1}), int);
  EXPECT_EQ(session.length(), 20);
  session.append(std::span(ids).subspan(20, 5));
  Session plain(engine, 1000);
  plain.append(first(25));
  EXPECT_EQ(copy(session.logits()), copy(plain.logits()));
}

class Decoding : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kTiny / "model.safetensors")) GTEST_SKIP() << "models/tiny has no weights";
    engine = Engine::load(kTiny, {.threads = 2});
    prompt = engine->tokenizer().encode("First Citizen:\nBefore we proceed any further, hear me.");
    prompt.insert(prompt.begin(), engine->tokenizer().bos());
  }
  Generation made(const DecodeOptions& decode, double temperature = 0, int64_t tokens = 60,
                  GenerateOptions options = {}) const {
    options.max_tokens = tokens;
    options.sampling = {.temperature = temperature, .seed = 5};
    options.ignore_eos = true;
    options.decode = decode;
    Session session(engine, 1000);
    return generate(session, prompt, options);
  }
  static DecodeOptions blocks(int64_t size, double gamma) {
    return {.mode = DecodeMode::kSetBlock, .set_block = {size, gamma, {}, kMask}};
  }

  static DecodeOptions block_draft(int64_t size) {
    return {.mode = DecodeMode::kBlockDraft, .set_block = {.block = size, .mask = kMask}};
  }

  static constexpr Token kMask = 4;
  std::shared_ptr<const Engine> engine;
  std::vector<Token> prompt;
};

TEST_F(Decoding, GuessingChangesNoToken) {
  for (const double temperature : {0.0, 1.0}) {
    const Generation plain = made({}, temperature);
    EXPECT_EQ(plain.forward_passes, 59);
    for (const int64_t most : {1, 3, 8, 40}) {
      const Generation ngram = made({.mode = DecodeMode::kNgram, .draft_max = most}, temperature);
      EXPECT_EQ(ngram.tokens, plain.tokens);
      const Generation draft =
          made({.mode = DecodeMode::kDraft, .draft_max = most, .draft = engine}, temperature);
      EXPECT_EQ(draft.tokens, plain.tokens);
      if (temperature == 0) {  // a model guesses itself
        EXPECT_EQ(draft.forward_passes, (59 + most) / (most + 1));
      }
      EXPECT_EQ(made(block_draft(most), temperature).tokens, plain.tokens);
    }
  }
}

TEST_F(Decoding, GuessingByWhatWasBeforeSavesPasses) {
  Session session(engine, 1000);
  std::vector<Token> twice = made({}, 0, 100).tokens;
  const std::vector<Token> once = twice;
  twice.insert(twice.end(), once.begin(), once.begin() + 50);
  const auto passes = [&](DecodeMode mode) {
    GenerateOptions options{.max_tokens = 40, .sampling = {.temperature = 0}};
    options.ignore_eos = true;
    options.decode.mode = mode;
    const Generation g = generate(session, twice, options);
    int64_t tokens = 0;
    for (size_t n = 0; n < g.passes_by_tokens.size(); ++n)
      tokens += static_cast<int64_t>(n) * g.passes_by_tokens[n];
    EXPECT_EQ(tokens, 39);  // the first came of the prompt's pass
    return g.forward_passes;
  };
  EXPECT_LT(passes(DecodeMode::kNgram), passes(DecodeMode::kPlain));
}

TEST_F(Decoding, TheSessionEndsBeforeTheLastToken) {
  for (const DecodeMode mode : {DecodeMode::kPlain, DecodeMode::kDraft}) {
    Session session(engine, 1000);
    GenerateOptions options;
    options.max_tokens = 30;
    options.sampling.temperature = 0;
    options.stop = {"e"};
    options.decode = {.mode = mode, .draft = engine};
    const Generation g = generate(session, prompt, options);
    EXPECT_EQ(g.finish_reason, FinishReason::kStop);
    EXPECT_EQ(session.length(), std::ssize(prompt) + std::ssize(g.tokens) - 1) << name_of(mode);
  }
}

TEST_F(Decoding, BlocksOfOneAreOrdinaryDecoding) {
  for (const double temperature : {0.0, 1.0}) {
    const Generation g = made(blocks(1, 0.35), temperature);
    EXPECT_EQ(g.tokens, made({}, temperature).tokens);
    EXPECT_EQ(g.forward_passes, 60);
  }
}

TEST_F(Decoding, ALargerGammaNeedsFewerPasses) {
  int64_t before = 60;
  EXPECT_EQ(made(blocks(16, 0)).forward_passes, 60);
  for (const double gamma : {0.5, 2.0, 8.0, 30.0}) {
    const Generation g = made(blocks(16, gamma));
    EXPECT_LE(g.forward_passes, before) << gamma;
    before = g.forward_passes;
  }
  EXPECT_LT(before, 60);
  EXPECT_EQ(made(blocks(16, kInfinite)).forward_passes, 4);
}

TEST_F(Decoding, APassDecidesWhatTheBoundAllows) {
  for (const RevealOrder order :
       {RevealOrder::kEntropy, RevealOrder::kConfidence, RevealOrder::kMargin})
    for (const double temperature : {0.0, 0.8}) {
      constexpr double kGamma = 3;
      DecodeOptions decode = blocks(8, kGamma);
      decode.set_block.order = order;
      int64_t passes = 0, together = 0;
      GenerateOptions options;
      options.on_block = [&](const BlockView& view) {
        EXPECT_EQ(view.pass, ++passes);
        ASSERT_FALSE(view.fresh.empty());
        double sum = 0, largest = 0;
        for (const Reveal& r : view.fresh) {
          EXPECT_EQ(view.tokens[static_cast<size_t>(r.position - view.position)], r.token);
          EXPECT_NE(r.token, kMask);
          sum += r.entropy;
          largest = std::max(largest, r.entropy);
        }
        EXPECT_LE(sum - largest, kGamma + 1e-12);
        together += view.fresh.size() > 1;
      };
      const Generation g = made(decode, temperature, 40, options);
      EXPECT_EQ(g.forward_passes, passes);
      EXPECT_GT(together, 0);
      ASSERT_EQ(g.reveals.size(), g.tokens.size());
      for (size_t i = 0; i < g.tokens.size(); ++i) {
        EXPECT_EQ(g.reveals[i].token, g.tokens[i]);
        EXPECT_EQ(g.reveals[i].position, std::ssize(prompt) + static_cast<int64_t>(i));
      }
    }
}

TEST_F(Decoding, AnAnswerOfBlocksEndsWhereItsTextIsWhole) {
  GenerateOptions options;
  const Generation whole = made(blocks(8, 4), 0, 40);
  const std::string stop = whole.text.substr(whole.text.size() / 2, 3);
  options.stop = {stop};
  const Generation cut = made(blocks(8, 4), 0, 40, options);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(cut.finish_reason, FinishReason::kStop);
  EXPECT_LT(cut.forward_passes, whole.forward_passes);
}

TEST_F(Decoding, FillsTheContextAndNoMore) {
  for (const DecodeOptions& decode : {DecodeOptions{}, DecodeOptions{.mode = DecodeMode::kNgram},
                                      DecodeOptions{.mode = DecodeMode::kDraft, .draft = engine},
                                      block_draft(16), blocks(16, 2)}) {
    Session session(engine, std::ssize(prompt) + 21);
    GenerateOptions options{.sampling = {.temperature = 0}, .ignore_eos = true, .decode = decode};
    const Generation g = generate(session, prompt, options);
    EXPECT_EQ(g.finish_reason, FinishReason::kLength);
    // A token that was only drawn needs no room.
    EXPECT_EQ(std::ssize(g.tokens), decode.mode == DecodeMode::kSetBlock ? 21 : 22);
  }
}

TEST_F(Decoding, NoPassIsOfMoreThanIsWanted) {
  std::vector<int64_t> sizes;
  GenerateOptions options;
  options.on_block = [&](const BlockView& view) { sizes.push_back(std::ssize(view.tokens)); };
  const Generation whole = made(blocks(16, kInfinite), 0, 40, options);
  EXPECT_EQ(sizes, (std::vector<int64_t>{16, 16, 8}));
  ASSERT_EQ(whole.passes_by_tokens.size(), 17u);
  EXPECT_EQ(whole.passes_by_tokens[16], 2);
  EXPECT_EQ(whole.passes_by_tokens[8], 1);
  const DecodeOptions draft{.mode = DecodeMode::kDraft, .draft_max = 8, .draft = engine};
  const Generation g = made(draft, 0, 15);  // the prompt's pass says one, the others 9 and 5
  EXPECT_EQ(g.forward_passes, 2);
  ASSERT_EQ(g.passes_by_tokens.size(), 10u);
  EXPECT_EQ(g.passes_by_tokens[9], 1);
  EXPECT_EQ(g.passes_by_tokens[5], 1);
}

// Text is there as soon as all before it is decided, and not before.
TEST_F(Decoding, TextOfABlockComesOnceAllBeforeItIsDecided) {
  std::string text;
  std::vector<Token> decided;  // before the pass that is shown
  GenerateOptions options{.max_tokens = 24, .sampling = {.temperature = 0}, .ignore_eos = true};
  options.decode = blocks(8, 0);
  int64_t early = 0;
  options.on_block = [&](const BlockView& view) {
    EXPECT_EQ(text, engine->tokenizer().decode(decided));
    decided.resize(static_cast<size_t>(view.position) - prompt.size());
    const auto masked = std::ranges::find(view.tokens, kMask);
    decided.insert(decided.end(), view.tokens.begin(), masked);
    early += masked != view.tokens.begin() && masked != view.tokens.end();
  };
  Session session(engine, 1000);
  const Generation g =
      generate(session, prompt, options, [&](std::string_view piece) { text += piece; });
  EXPECT_EQ(g.tokens, decided);
  EXPECT_EQ(g.text, text);
  EXPECT_GT(early, 0);
}

TEST_F(Decoding, AStopRequestEndsABlock) {
  std::stop_source stop;
  GenerateOptions options{.max_tokens = 60, .sampling = {.temperature = 0}, .ignore_eos = true};
  options.decode = blocks(16, 0);
  int64_t passes = 0;
  options.on_block = [&](const BlockView&) {
    if (++passes == 3) stop.request_stop();
  };
  Session session(engine, 1000);
  const Generation g = generate(session, prompt, options, {}, Watch{{}, stop.get_token()});
  EXPECT_EQ(g.finish_reason, FinishReason::kInterrupted);
  EXPECT_EQ(g.forward_passes, 3);
}

TEST_F(Decoding, SessionsShareTheStepsOfTheirBlocks) {
  const SamplerOptions sampling{.temperature = 0.9, .seed = 3};
  const SetBlockOptions options = blocks(8, 3).set_block;
  const int usable = engine->tokenizer().size();
  const auto started = [&](size_t drop) {
    auto session = std::make_unique<Session>(engine, 1000);
    session->append(std::span(prompt).first(prompt.size() - drop));
    return session;
  };
  const auto alone = [&](size_t drop) {
    const auto session = started(drop);
    BlockDecoder decoder(*session, options, sampling, usable);
    std::vector<Token> tokens;
    for (int i = 0; i < 2; ++i) {
      for (decoder.begin(8); !decoder.done(); decoder.reveal()) {
        const StepItem pass = decoder.next_pass();
        engine->step({&pass, 1});
      }
      tokens.insert(tokens.end(), decoder.block().begin(), decoder.block().end());
    }
    return tokens;
  };
  const auto a = started(0), b = started(3);
  BlockDecoder decoders[] = {{*a, options, sampling, usable}, {*b, options, sampling, usable}};
  std::vector<Token> together[2];
  int64_t steps = 0;
  while (together[0].size() < 16 || together[1].size() < 16) {
    std::vector<StepItem> items;
    std::vector<int> who;
    for (int i = 0; i < 2; ++i) {
      if (together[i].size() == 16) continue;
      if (decoders[i].done()) decoders[i].begin(8);
      items.push_back(decoders[i].next_pass());
      who.push_back(i);
    }
    engine->step(items);
    ++steps;
    for (const int i : who) {
      decoders[i].reveal();
      if (decoders[i].done())
        together[i].insert(together[i].end(), decoders[i].block().begin(),
                           decoders[i].block().end());
    }
  }
  EXPECT_EQ(together[0], alone(0));
  EXPECT_EQ(together[1], alone(3));
  EXPECT_EQ(steps, std::max(decoders[0].passes(), decoders[1].passes()));
}

TEST_F(Decoding, AModelWithOtherPiecesDoesNotGuess) {
  const ScratchFolder scratch;
  const fs::path folder = scratch.path() / "model";
  fs::copy(kTiny, folder, fs::copy_options::recursive);
  std::ifstream in(folder / "tokenizer.json");
  std::string json{std::istreambuf_iterator<char>(in), {}};
  const std::string piece = "\"<unused0>\"";
  for (size_t at = 0; (at = json.find(piece, at)) != std::string::npos;)
    json.replace(at, piece.size(), "\"<blank>\"");
  write_file(folder / "tokenizer.json", json);
  const DecodeOptions decode{.mode = DecodeMode::kDraft,
                             .draft = Engine::load(folder, {.threads = 1})};
  EXPECT_THROW(check_decode_options(decode, *engine), Error);
}

// Models of one tokenizer are padded to different numbers of rows, as Gemma 3 4B and 270M are.
TEST_F(Decoding, ATableOfOtherLengthStillGuesses) {
  const Generation plain = made({});
  for (const int vocab : {engine->config().vocab_size + 2048, engine->config().vocab_size - 64}) {
    const ScratchFolder scratch;
    const Config shape =
        small_config("gemma-3-270m", {.layers = 2, .hidden = 32, .ffn = 32, .vocab = vocab});
    synthesize(shape, {.threads = 1}, scratch.path() / "draft");
    fs::copy(kTiny / "tokenizer.json", scratch.path() / "draft/tokenizer.json");
    const DecodeOptions decode{.mode = DecodeMode::kDraft,
                               .draft = Engine::load(scratch.path() / "draft", {.threads = 1})};
    EXPECT_NO_THROW(check_decode_options(decode, *engine));
    EXPECT_EQ(made(decode).tokens, plain.tokens) << vocab;
  }
}

TEST_F(Decoding, RefusesWhatCannotBe) {
  const auto refuses = [&](const DecodeOptions& decode) {
    EXPECT_THROW(check_decode_options(decode, *engine), Error);  // before anything is read
    EXPECT_THROW(made(decode), Error);
  };
  EXPECT_NO_THROW(check_decode_options(blocks(64, 0), *engine));
  EXPECT_NO_THROW(check_decode_options(
      {.mode = DecodeMode::kNgram, .draft_max = kMaxBlock - 1, .ngram_max = 1}, *engine));
  refuses(blocks(0, 1));
  refuses(blocks(65, 1));  // the window is 64
  refuses(blocks(8, -0.1));
  refuses(blocks(8, std::nan("")));
  refuses(block_draft(0));
  refuses(block_draft(65));
  DecodeOptions decode = blocks(8, 1);
  decode.set_block.mask = 4096;
  refuses(decode);
  refuses({.mode = DecodeMode::kDraft});
  refuses({.mode = DecodeMode::kNgram, .draft_max = 0});
  refuses({.mode = DecodeMode::kNgram, .draft_max = kMaxBlock});
  refuses({.mode = DecodeMode::kNgram, .ngram_max = 0});
  const auto other = Engine::load(kGolden / "gemma3-v5", {.threads = 1});
  refuses({.mode = DecodeMode::kDraft, .draft = other});
  EXPECT_NO_THROW(check_decode_options(blocks(20, 1), *other));  // its window
  EXPECT_THROW(check_decode_options(blocks(21, 1), *other), Error);
  EXPECT_THROW(decode_mode_named("fast"), Error);
  EXPECT_EQ(decode_mode_named("set-block"), DecodeMode::kSetBlock);
  EXPECT_EQ(decode_mode_named("block-draft"), DecodeMode::kBlockDraft);
}

}  // namespace
}  // namespace lapidary
