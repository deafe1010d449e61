#include "bench/work.h"

#include <gtest/gtest.h>

namespace lapidary {
namespace {

// Two layers, one of them with a window of 4; 2 query heads and 1 K/V head of 8.
ModelWork model() {
  ModelWork m;
  m.config.num_hidden_layers = 2;
  m.config.num_attention_heads = 2;
  m.config.num_key_value_heads = 1;
  m.config.head_dim = 8;
  m.config.sliding_window = 4;
  m.config.layer_types = {LayerType::kFull, LayerType::kSliding};
  m.parts = {{"embedding", "", 1000, 600},
             {"attention", "", 200, 120},
             {"mlp", "", 300, 180},
             {"norms", "", 10, 40}};
  return m;
}

TEST(Work, KeysThatQueriesSee) {
  EXPECT_EQ(keys_seen(0, 1, 0), 1);
  EXPECT_EQ(keys_seen(0, 4, 0), 1 + 2 + 3 + 4);
  EXPECT_EQ(keys_seen(10, 2, 0), 11 + 12);
  EXPECT_EQ(keys_seen(2, 4, 4), 3 + 4 + 4 + 4);
  EXPECT_EQ(keys_seen(1000, 3, 4), 12);
}

TEST(Work, OfDecodingIsTheWeightsOncePerStepAndTheKeysAndValuesSeen) {
  // At positions 10 and 11 the full layer sees 11 and 12 keys, the other 4 and 4; a position's keys
  // and values are 2 * 8 numbers of 2 bytes.
  const Work work = work_of(model(), {.gen = 2, .depth = 10});
  EXPECT_DOUBLE_EQ(work.bytes, 600 + 120 + 180 + 40 + (11 + 12 + 4 + 4) / 2.0 * 32);
  EXPECT_DOUBLE_EQ(work.flops, 2.0 * (1000 + 200 + 300) + (11 + 12 + 4 + 4) / 2.0 * 4 * 16);
}

TEST(Work, OfABatchSharesTheWeightsOnly) {
  const Work one = work_of(model(), {.gen = 1, .depth = 10});
  const Work four = work_of(model(), {.gen = 1, .depth = 10, .batch = 4});
  EXPECT_DOUBLE_EQ(one.bytes - four.bytes, 940 * 0.75);
  EXPECT_DOUBLE_EQ(one.flops, four.flops);
}

TEST(Work, OfAPromptReadsEverythingOnceAndMakesOneRowOfLogits) {
  // 5 tokens after 10: together they see 15 positions in the full layer, 8 in the other.
  const Work work = work_of(model(), {.prompt = 5, .depth = 10});
  EXPECT_DOUBLE_EQ(work.bytes, (940 + (15 + 8) * 32.0) / 5);
  const double pairs = 11 + 12 + 13 + 14 + 15 + 5 * 4;
  EXPECT_DOUBLE_EQ(work.flops, 2 * 500.0 + (2 * 1000 + pairs * 4 * 16) / 5);
}

TEST(Work, AHeadOfItsOwnTakesThePlaceOfTheEmbedding) {
  ModelWork m = model();
  m.parts.push_back({"head", "", 1000, 2000});
  EXPECT_DOUBLE_EQ(work_of(m, {.gen = 1}).bytes - work_of(model(), {.gen = 1}).bytes, 2000 - 600);
}

TEST(Work, ProductsOfQuantisedWeightsAreRounded) {
  ModelWork m = model();
  m.rounds_activations = true;
  EXPECT_EQ(work_of(m, {.prompt = 5}).rounded, 0);
  m.parts[1].quantized = m.parts[1].parameters;  // of "attention"
  EXPECT_DOUBLE_EQ(work_of(m, {.prompt = 5}).rounded, 2 * 200.0);
  m.parts[0].quantized = m.parts[0].parameters;  // the head, once for 5 tokens
  EXPECT_DOUBLE_EQ(work_of(m, {.prompt = 5}).rounded, 2 * 200.0 + 2 * 1000 / 5.0);
  EXPECT_DOUBLE_EQ(work_of(m, {.gen = 5}).rounded, 2 * 200.0 + 2 * 1000);
  m.rounds_activations = false;
  EXPECT_EQ(work_of(m, {.gen = 5}).rounded, 0);
}

TEST(Work, WiderKeysAndValuesCostMore) {
  ModelWork m = model();
  m.kv_type = KvType::kF32;
  EXPECT_DOUBLE_EQ(work_of(m, {.gen = 1}).bytes - work_of(model(), {.gen = 1}).bytes, 2 * 32);
}

}  // namespace
}  // namespace lapidary
