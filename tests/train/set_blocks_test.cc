// Training on set blocks: what is drawn, what each row sees, and the gradients of whole models.
#include "train/set_blocks.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/engine.h"
#include "lapidary/error.h"
#include "lapidary/session.h"

#include "base/json.h"
#include "base/statistics.h"
#include "gemma/backprop.h"
#include "gemma/load.h"
#include "io/test_files.h"
#include "train/bf16_operands.h"
#include "train/full_weights.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

const fs::path kGolden = fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden";
constexpr SetBlockTraining kBlocks{.mask_token_id = 4, .block_min = 2, .block_max = 16};

Batch batch_of(const std::vector<std::vector<Token>>& documents) {
  Batch batch;
  for (const std::vector<Token>& tokens : documents) {
    batch.append({tokens, std::vector<uint8_t>(tokens.size(), 1)});
    batch.numbers.push_back(batch.numbers.size());
  }
  return batch;
}

std::vector<Token> tokens_from(Token first, int64_t count) {
  std::vector<Token> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  tokens.front() = 2;
  return tokens;
}

TEST(SetBlockNoise, CopiesStandBehindTheirDocuments) {
  const Batch plain = batch_of({tokens_from(10, 5), tokens_from(20, 3)});
  const Batch noisy = with_noisy_copies(plain, kBlocks, 7, 4);
  EXPECT_EQ(noisy.lengths, (std::vector<int64_t>{10, 6}));
  EXPECT_EQ(noisy.blocks, (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(noisy.token_count(), 8);
  EXPECT_EQ(noisy.target_count(), plain.target_count());
  int64_t first = 0, row = 0;
  for (const int64_t length : plain.lengths) {
    for (int64_t i = 0; i < length; ++i) {
      const auto clean = static_cast<size_t>(row + i), copy = static_cast<size_t>(row + length + i);
      const auto was = static_cast<size_t>(first + i);
      EXPECT_EQ(noisy.tokens[clean], plain.tokens[was]);
      EXPECT_EQ(noisy.targets[clean], plain.targets[was]);
      EXPECT_EQ(noisy.masked[clean], kNoTarget);
      EXPECT_EQ(noisy.targets[copy], kNoTarget);
      const bool masked = noisy.masked[copy] != kNoTarget;
      EXPECT_EQ(noisy.tokens[copy], masked ? 4 : plain.tokens[was]);
      if (masked) {
        EXPECT_EQ(noisy.masked[copy], plain.tokens[was]);
      }
    }
    EXPECT_EQ(noisy.masked[static_cast<size_t>(row + length)], kNoTarget) << "<bos> was masked";
    first += length;
    row += 2 * length;
  }
}

// Shares of 400 documents whose probability is uniform: their mean is that of 400 uniform draws,
// with a standard deviation of 0.0144, and as many are in each quarter, with one of 8.7.
TEST(SetBlockNoise, EachDocumentHasAProbabilityOfItsOwn) {
  Batch plain = batch_of(std::vector(400, tokens_from(10, 401)));
  const Batch noisy = with_noisy_copies(plain, kBlocks, 3, 0);
  double mean = 0;
  std::vector<int64_t> quarters(4), sizes(17);
  for (size_t d = 0; d < 400; ++d) {
    const auto copy = noisy.masked.begin() + static_cast<int64_t>(d * 802 + 401);
    const double share = 1 - static_cast<double>(std::count(copy, copy + 401, kNoTarget) - 1) / 400;
    mean += share / 400;
    ++quarters[static_cast<size_t>(std::min(3.0, 4 * share))];
    ++sizes[static_cast<size_t>(noisy.blocks[d])];
  }
  EXPECT_NEAR(mean, 0.5, 4 * 0.0144);
  for (const int64_t count : quarters) EXPECT_NEAR(static_cast<double>(count), 100, 4 * 8.7);
  for (size_t size = 2; size <= 16; ++size) EXPECT_GT(sizes[size], 0) << size;
  EXPECT_EQ(std::accumulate(sizes.begin() + 2, sizes.end(), int64_t{0}), 400);
}

TEST(SetBlockNoise, IsThatOfTheNumberWhateverTheBatch) {
  const std::vector<Token> tokens = tokens_from(10, 50);
  Batch both = batch_of({tokens, tokens}), second = batch_of({tokens});
  second.numbers = {1};
  const Batch a = with_noisy_copies(both, kBlocks, 3, 5),
              b = with_noisy_copies(second, kBlocks, 3, 5);
  EXPECT_TRUE(std::equal(b.tokens.begin(), b.tokens.end(), a.tokens.begin() + 100));
  EXPECT_FALSE(std::equal(b.tokens.begin(), b.tokens.end(), a.tokens.begin()));
  EXPECT_NE(with_noisy_copies(second, kBlocks, 4, 5).tokens, b.tokens);
}

TEST(SetBlockNoise, PromptsStay) {
  const std::vector<Token> tokens = tokens_from(10, 60);
  std::vector<uint8_t> counted(60, 0);
  std::fill(counted.begin() + 30, counted.end(), uint8_t{1});
  Batch plain;
  plain.append({tokens, counted});
  plain.numbers = {0};
  const Batch noisy = with_noisy_copies(plain, kBlocks, 1, 4);
  EXPECT_EQ(std::count(noisy.masked.begin(), noisy.masked.begin() + 90, kNoTarget), 90);
  EXPECT_LT(std::count(noisy.masked.begin() + 90, noisy.masked.end(), kNoTarget), 30);
}

TEST(SetBlockNoise, EachStepHasABlock) {
  std::vector<int64_t> sizes(17);
  for (int64_t step = 0; step < 3000; ++step)
    ++sizes.at(static_cast<size_t>(block_of_step(kBlocks, 5, step)));
  // 200 of each, with a standard deviation of 13.7.
  for (size_t size = 2; size <= 16; ++size)
    EXPECT_NEAR(static_cast<double>(sizes[size]), 200, 4.5 * 13.7) << size;
  EXPECT_EQ(block_of_step({.mask_token_id = 4, .block_min = 8, .block_max = 8}, 5, 2), 8);
}

// A model whose weights are all trained.
struct Case {
  Model model;
  FullWeights weights;
  Operands operands;
  Executor ex;

  explicit Case(const std::string& name, Operands operands_in = Operands::kFloat)
      : model(load_model(kGolden / name)),
        weights(model.config, model.weights, [](std::string_view) { return true; }),
        operands(operands_in),
        ex(operands == Operands::kFloat ? best_kernels() : bf16_kernels(), 1) {}

  Loss gradients(const Batch& batch, float scale, int checkpoint_layers = 0) {
    Backprop pass(ex, model.config, model.weights, std::ssize(batch.tokens), checkpoint_layers,
                  operands);
    for (const Parameter& p : weights.parameters()) {
      std::fill(p.grad.begin(), p.grad.end(), 0.0f);
      pass.tape().track(p.value.data(), p.size(), p.grad.data());
    }
    return pass.run(batch.documents(), scale);
  }
  Loss evaluate(const Batch& batch) {
    return Backprop(ex, model.config, model.weights, std::ssize(batch.tokens), 0)
        .evaluate(batch.documents());
  }
};

class SetBlockGolden : public ::testing::TestWithParam<const char*> {};

Batch golden_batch(const Json& golden) {
  const auto mask = golden["mask_token_id"].get<Token>();
  Batch batch;
  for (const Json& document : golden["documents"]) {
    const auto tokens = document["tokens"].get<std::vector<Token>>();
    batch.append({tokens, std::vector<uint8_t>(tokens.size(), 1)});
    batch.lengths.back() *= 2;
    batch.blocks.push_back(document["block"]);
    batch.masked.insert(batch.masked.end(), tokens.size(), kNoTarget);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool masked = document["masked"][i] == 1;
      batch.tokens.push_back(masked ? mask : tokens[i]);
      batch.targets.push_back(kNoTarget);
      batch.masked.push_back(masked ? tokens[i] : kNoTarget);
    }
  }
  return batch;
}

// As BackpropTest: a few hundred roundings in a row add up as a random walk. No value is off by
// more than all together.
TEST_P(SetBlockGolden, LossesAndGradientsAreThoseOfTheReference) {
  const Json golden = read_json_file(kGolden / "sbd.json")[GetParam()];
  const Batch batch = golden_batch(golden);
  Case c(GetParam());
  ASSERT_EQ(batch.target_count(), golden["targets"]);
  const auto targets = static_cast<double>(batch.target_count());
  for (const int checkpoint_layers : {0, 2}) {
    const Loss loss = c.gradients(batch, static_cast<float>(1 / targets), checkpoint_layers);
    const auto masked = static_cast<double>(loss.masked_tokens);
    EXPECT_EQ(loss.masked_tokens, batch.masked_count());
    EXPECT_NEAR(loss.nats / targets, golden["ntp_nats"].get<double>() / targets, 1e-5);
    EXPECT_NEAR(loss.masked_nats / masked, golden["matp_nats"].get<double>() / masked, 1e-5);
    for (const Parameter& p : c.weights.parameters()) {
      const Json& want = golden["gradients"][p.name];
      const double norm = want["norm"];
      double squares = 0;
      for (const float g : p.grad) squares += double{g} * g;
      EXPECT_NEAR(std::sqrt(squares), norm, 2e-5 * norm) << p.name;
      const auto step = want["step"].get<size_t>();
      for (size_t i = 0; i < want["values"].size(); ++i)
        EXPECT_NEAR(p.grad[i * step], want["values"][i].get<double>(), 2e-5 * norm) << p.name;
    }
  }
}

TEST_P(SetBlockGolden, OperandsOfBf16StayNear) {
  const Batch batch = golden_batch(read_json_file(kGolden / "sbd.json")[GetParam()]);
  Case exact(GetParam()), rounded(GetParam(), Operands::kBFloat16);
  const auto scale = static_cast<float>(1.0 / static_cast<double>(batch.target_count()));
  exact.gradients(batch, scale);
  rounded.gradients(batch, scale);
  for (size_t i = 0; i < exact.weights.parameters().size(); ++i) {
    const Parameter &want = exact.weights.parameters()[i], &got = rounded.weights.parameters()[i];
    const double difference = relative_error(got.grad, want.grad);
    EXPECT_LE(difference, bf16_bound(exact.model.config)) << want.name;
    EXPECT_GT(difference, 2e-5) << want.name;  // they were rounded
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SetBlockGolden, ::testing::Values("gemma2-gqa", "gemma3-v5"),
                         [](const auto& test) {
                           return std::string(test.param).substr(0, std::string("gemma2").size());
                         });

class SetBlockSight : public ::testing::TestWithParam<const char*> {};

// A block of one token sees what is before it, and itself: with nothing masked its rows are those
// of the document, and say the next token as those do.
TEST_P(SetBlockSight, BlocksOfOneAreCausal) {
  Case c(GetParam());
  Batch batch = with_noisy_copies(batch_of({tokens_from(30, 50)}), kBlocks, 1, 1);
  std::copy_n(batch.tokens.begin(), 50, batch.tokens.begin() + 50);
  std::copy_n(batch.targets.begin(), 50, batch.masked.begin() + 50);
  Loss loss = c.evaluate(batch);
  ASSERT_EQ(loss.masked_tokens, 49);
  EXPECT_NEAR(loss.masked_nats / loss.nats, 1, 1e-6);
  batch.blocks = {5};  // which see tokens that they are to say
  loss = c.evaluate(batch);
  EXPECT_GT(std::abs(loss.masked_nats / loss.nats - 1), 1e-3);
}

// What the clean rows of a document say does not depend on its copy.
TEST_P(SetBlockSight, NoCleanRowSeesANoisyOne) {
  Case c(GetParam());
  const Batch plain = batch_of({tokens_from(30, 50)});
  const double alone = c.evaluate(plain).nats;
  const Loss loss = c.evaluate(with_noisy_copies(plain, kBlocks, 1, 7));
  EXPECT_GT(loss.masked_tokens, 0);
  EXPECT_EQ(loss.nats, alone);
}

TEST_P(SetBlockSight, DocumentsInARowDoNotSeeEachOther) {
  Case c(GetParam());
  const auto first_beside = [&](Token other) {
    Batch batch =
        with_noisy_copies(batch_of({tokens_from(30, 21), tokens_from(other, 18)}), kBlocks, 1, 6);
    std::fill(batch.targets.begin() + 42, batch.targets.end(), kNoTarget);
    std::fill(batch.masked.begin() + 42, batch.masked.end(), kNoTarget);
    return c.evaluate(batch);
  };
  const Loss one = first_beside(60), other = first_beside(90);
  ASSERT_GT(one.masked_tokens, 0);
  EXPECT_EQ(one.nats, other.nats);
  EXPECT_EQ(one.masked_nats, other.masked_nats);
}

// A masked token is told by its block and what is before that, not by what comes after.
TEST_P(SetBlockSight, LaterBlocksAreNotSeen) {
  Case c(GetParam());
  const auto with_later = [&](Token later) {
    std::vector<Token> tokens = tokens_from(30, 40);
    std::fill(tokens.begin() + 24, tokens.end(), later);
    Batch batch = with_noisy_copies(batch_of({tokens}), kBlocks, 1, 8);
    std::fill(batch.masked.begin() + 40 + 24, batch.masked.end(), kNoTarget);
    return c.evaluate(batch);
  };
  const Loss one = with_later(60), other = with_later(90);
  ASSERT_GT(one.masked_tokens, 0);
  EXPECT_NE(one.nats, other.nats);
  EXPECT_EQ(one.masked_nats, other.masked_nats);
}

INSTANTIATE_TEST_SUITE_P(Models, SetBlockSight, ::testing::Values("gemma2-gqa", "gemma3-v5"),
                         [](const auto& test) {
                           return std::string(test.param).substr(0, std::string("gemma2").size());
                         });

TEST(SetBlockOptions, AreChecked) {
  const Model model = load_model(kGolden / "gemma3-v5");  // with windows of 20
  const Tokenizer tokenizer = Tokenizer::load(fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny");
  TrainOptions o;
  o.model = "gem";
  EXPECT_EQ(set_blocks(o, model.config, &tokenizer), std::nullopt);
  o.objective = TrainObjective::kSetBlock;
  EXPECT_EQ(set_blocks(o, model.config, &tokenizer), kBlocks);
  const auto refusal = [&](const std::function<void(TrainOptions&)>& change,
                           const Tokenizer* known) {
    TrainOptions changed = o;
    change(changed);
    return error_of([&] { set_blocks(changed, model.config, known); });
  };
  EXPECT_EQ(refusal([](TrainOptions& c) { c.block_min = 0; }, &tokenizer),
            "--block-min: 0 is not positive");
  EXPECT_EQ(refusal([](TrainOptions& c) { c.block_max = 1; }, &tokenizer),
            "--block-max: 1 is less than the 2 of --block-min");
  EXPECT_EQ(refusal([](TrainOptions& c) { c.block_max = 21; }, &tokenizer),
            "--block-max: 21 is more than the model's sliding window of 20");
  EXPECT_EQ(refusal([](TrainOptions& c) { c.mask_token = "300"; }, &tokenizer),
            "--mask-token: 300 is no id of the model's, 0 to 299");
  EXPECT_EQ(refusal([](TrainOptions& c) { c.mask_token = "<blank>"; }, &tokenizer),
            "gem: the tokenizer has no '<blank>' to stand for masked tokens");
  EXPECT_EQ(refusal([](TrainOptions&) {}, nullptr),
            "gem: the tokenizer has no '<mask>' to stand for masked tokens");
  o.mask_token = "<unused1>";
  EXPECT_EQ(set_blocks(o, model.config, &tokenizer)->mask_token_id, 7);
  o.mask_token = "299";
  EXPECT_EQ(set_blocks(o, model.config, nullptr)->mask_token_id, 299);
}

// What a block is trained on is what it is decoded with: the rows of a noisy copy, and a block
// after a session with what is before it. Both sum in f32, in different orders.
class DecodedBlocks : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, DecodedBlocks, ::testing::Values("gemma2-gqa", "gemma3-v5"),
                         [](const auto& model) { return std::string(model.param).substr(0, 6); });

TEST_P(DecodedBlocks, AreThoseOfTraining) {
  const fs::path folder = kGolden / GetParam();
  const auto engine = Engine::load(folder, {.compute = Compute::kExact, .threads = 1});
  const Model model = load_model(folder);
  const Config& c = model.config;
  constexpr int64_t kLength = 45, kBlock = 8;  // beyond the window of 16, and a short last block
  std::vector<Token> tokens = tokens_from(10, kLength), noisy = tokens;
  for (size_t i = 1; i < noisy.size(); i += 1 + i % 3) noisy[i] = kBlocks.mask_token_id;
  std::vector<Token> both = tokens;
  both.insert(both.end(), noisy.begin(), noisy.end());

  Executor ex{best_kernels(), 1};
  State state(c, 2 * kLength);
  const Segment segment{.cache = nullptr, .rows = 2 * kLength, .set_block = kBlock};
  forward(ex, c, model.weights, c.embed_scale(), {&segment, 1}, both, state);
  std::vector<float> memory(static_cast<size_t>(2 * kLength * c.vocab_size));
  const Matrix trained{memory.data(), 2 * kLength, c.vocab_size};
  head(ex, c, model.weights, state.h, trained);

  Session session(engine, 100);
  int64_t rows = 0;
  for (int64_t begin = 0; begin < kLength; begin += kBlock) {
    const auto block = std::span(noisy).subspan(
        static_cast<size_t>(begin), static_cast<size_t>(std::min(kBlock, kLength - begin)));
    std::vector<int64_t> wanted(block.size());
    std::iota(wanted.begin(), wanted.end(), 0);
    StepItem item{
        .session = &session,
        .tokens = std::span(tokens).subspan(static_cast<size_t>(session.length()),
                                            static_cast<size_t>(begin - session.length()))};
    item.block = block;
    item.block_rows = wanted;
    item.on_block = [&](int64_t i, std::span<const float> logits) {
      const std::span wanted_logits(trained.row(kLength + begin + i), logits.size());
      EXPECT_LT(relative_error(logits, wanted_logits), 1e-5) << "row " << begin + i;
      ++rows;
    };
    engine->step({&item, 1});
  }
  EXPECT_EQ(rows, kLength);
}

}  // namespace
}  // namespace lapidary
