// Forecasts of memory against what was used.
#include "train/memory.h"

#include <filesystem>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "gemma/backprop.h"
#include "train/full_weights.h"
#include "train/lora.h"
#include "train/set_blocks.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

struct Way {
  bool full;
  std::vector<std::string> targets;
  double dropout;
  int checkpoint_layers;
  bool dora = false;
};

class TapeMemoryTest : public ::testing::TestWithParam<std::tuple<const char*, Way>> {};

TEST_P(TapeMemoryTest, IsForecast) {
  const auto& [name, way] = GetParam();
  Model model = load_model(fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden" / name);
  const Config& c = model.config;
  FullWeights weights(c, model.weights, [&](std::string_view) { return way.full; });
  Adapter adapter;
  if (!way.full) {
    adapter = make_lora(c, {.rank = 3, .dora = way.dora, .targets = way.targets});
    attach(adapter, 1, c, model.weights);
  }
  AdapterWeights factors(adapter);

  constexpr int64_t kRows = 48;
  std::vector<Token> tokens(kRows), targets(kRows, 5);
  std::iota(tokens.begin(), tokens.end(), 3);
  const std::vector<int64_t> lengths = {32, 16};
  Executor ex(best_kernels(), 1);
  Backprop pass(ex, c, model.weights, kRows, way.checkpoint_layers);
  pass.tape().set_dropout(way.dropout, 1);
  for (const Parameter& p : weights.parameters())
    pass.tape().track(p.value.data(), p.size(), p.grad.data());
  for (const Parameter& p : factors.parameters())
    pass.tape().track(p.value.data(), p.size(), p.grad.data());
  pass.run({tokens, targets, lengths}, 1);

  const auto trained = [&](const std::string& matrix) {
    Trained t{.values = way.full, .dora = way.dora};
    for (const AdapterMatrix& m : adapter.matrices)
      if (matrix == m.target + ".weight") t.adapter_rank = m.rank;
    return t;
  };
  // Rows of 48 make all pieces but the smallest whole lines: none is rounded up.
  EXPECT_EQ(pass.tape().peak_bytes(),
            tape_bytes(c, kRows, way.checkpoint_layers, way.dropout > 0, trained));
}

const Way kWays[] = {{true, {}, 0, 0},
                     {true, {}, 0, 2},
                     {false, {}, 0, 0},
                     {false, {}, 0.1, 0},
                     {false, {"q_proj", "mlp.down*"}, 0, 1},
                     {false, {}, 0.1, 0, true},
                     {false, {"k_proj", "mlp.down*"}, 0, 2, true}};

INSTANTIATE_TEST_SUITE_P(Models, TapeMemoryTest,
                         ::testing::Combine(::testing::Values("gemma1-mqa", "gemma2-gqa",
                                                              "gemma3-v5"),
                                            ::testing::ValuesIn(kWays)));

// A document of 24 tokens and its copy take what a document of 48 does.
TEST(TrainMemoryTest, NoisyCopiesAreRows) {
  Model model = load_model(fs::path(LAPIDARY_SOURCE_DIR) / "tests/golden/gemma3-v5");
  Adapter adapter = make_lora(model.config, {.rank = 3});
  attach(adapter, 1, model.config, model.weights);
  AdapterWeights factors(adapter);
  Batch batch;
  std::vector<Token> tokens(24);
  std::iota(tokens.begin(), tokens.end(), 3);
  batch.append({tokens, std::vector<uint8_t>(24, 1)});
  batch.numbers = {0};
  const Batch noisy = with_noisy_copies(batch, {4, 2, 16}, 1, 5);
  Executor ex(best_kernels(), 1);
  Backprop pass(ex, model.config, model.weights, 48, 2);
  for (const Parameter& p : factors.parameters())
    pass.tape().track(p.value.data(), p.size(), p.grad.data());
  pass.run(noisy.documents(), 1);
  EXPECT_EQ(pass.tape().peak_bytes(),
            tape_bytes(model.config, 48, 2, false, [&](const std::string& name) {
              const bool adapted = name.find("_proj") != std::string::npos;
              return Trained{.adapter_rank = adapted ? 3 : 0};
            }));
}

TrainOptions tiny() {
  TrainOptions o;
  o.model = fs::path(LAPIDARY_SOURCE_DIR) / "models/tiny";
  return o;
}

TEST(TrainMemoryTest, LessMemoryMeansSmallerBatchesAndThenCheckpoints) {
  const Model model = load_model(tiny().model);
  const auto chosen = [&](int64_t limit) {
    TrainOptions o = tiny();
    o.max_memory = limit;
    const TrainMemory memory = choose_memory(o, model);
    EXPECT_LE(memory.total(), limit);
    EXPECT_EQ(o.micro_batch, memory.micro_batch);
    EXPECT_EQ(o.checkpoint_layers, memory.checkpoint_layers);
    return memory;
  };
  const TrainMemory most = chosen(int64_t{1} << 40);
  EXPECT_EQ(most.micro_batch, 4);
  EXPECT_EQ(most.checkpoint_layers, 0);
  const TrainMemory less = chosen(most.total() - 1);
  EXPECT_EQ(less.micro_batch, 2);
  EXPECT_EQ(less.checkpoint_layers, 0);
  const TrainMemory least_rows = chosen(less.total() - 1);
  EXPECT_EQ(least_rows.micro_batch, 1);
  EXPECT_EQ(least_rows.checkpoint_layers, 0);
  const TrainMemory checkpoints = chosen(least_rows.total() - (1 << 20));
  EXPECT_GT(checkpoints.checkpoint_layers, 0);
}

TEST(TrainMemoryTest, SetBlocksTakeTwiceTheRowsButNotTheLogits) {
  const Model model = load_model(tiny().model);
  TrainOptions plain = tiny(), blocks = tiny();
  blocks.sequence_length = 64;
  plain.sequence_length = 128;
  plain.micro_batch = blocks.micro_batch = 1;
  blocks.objective = TrainObjective::kSetBlock;
  const int64_t logits =
      cross_entropy_bytes(model.config, 128) - cross_entropy_bytes(model.config, 64);
  EXPECT_GT(logits, int64_t{64} * 4096 * 4);
  EXPECT_EQ(training_memory(blocks, model, 0).total() + logits,
            training_memory(plain, model, 0).total());
}

TEST(TrainMemoryTest, WhatIsGivenStays) {
  const Model model = load_model(tiny().model);
  TrainOptions o = tiny();
  o.max_memory = int64_t{1} << 40;
  o.micro_batch = 2;
  o.checkpoint_layers = 3;
  choose_memory(o, model);
  EXPECT_EQ(o.micro_batch, 2);
  EXPECT_EQ(o.checkpoint_layers, 3);
}

TEST(TrainMemoryTest, TooLittleIsRefusedWithTheNeed) {
  const Model model = load_model(tiny().model);
  TrainOptions o = tiny();
  o.max_memory = 1 << 20;
  try {
    choose_memory(o, model);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kResource);
    EXPECT_NE(std::string(error.what()).find("may have 1 MiB"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lapidary
