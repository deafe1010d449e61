// The words of GGUF for Gemma, written out here as llama.cpp's converter writes them.
#include "gemma/gguf_model.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "base/json.h"
#include "gemma/config_parse.h"
#include "gemma/model.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

// As small as the parser allows; `changes` go over it.
Config config_of(Family family, const Json& changes = Json::object()) {
  const char* types[] = {"gemma", "gemma2", "gemma3_text"};
  Json json = {{"model_type", types[static_cast<int>(family) - 1]},
               {"hidden_size", 96},
               {"intermediate_size", 160},
               {"num_hidden_layers", 6},
               {"num_attention_heads", 4},
               {"num_key_value_heads", 2},
               {"head_dim", 32},
               {"vocab_size", 300},
               {"max_position_embeddings", 512},
               {"sliding_window", 24},
               {"query_pre_attn_scalar", 32}};
  json.update(changes);
  return parse_config(json, "config.json");
}

// Every name of a layer and of the model, in the order in which they are visited.
std::vector<std::string> names_of(const Config& config) {
  std::vector<std::string> names;
  Weights weights;
  weights.layers.resize(1);
  visit_tensors(config, weights, [&](const std::string& name, auto&, int64_t, int64_t) {
    names.push_back(gguf_tensor_name(config, name));
  });
  return names;
}

TEST(GgufModel, TensorNames) {
  EXPECT_EQ(names_of(config_of(Family::kGemma1)),
            (std::vector<std::string>{
                "token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
                "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
                "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
                "blk.0.ffn_down.weight", "output_norm.weight"}));
  EXPECT_EQ(names_of(config_of(Family::kGemma3)),
            (std::vector<std::string>{
                "token_embd.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
                "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
                "blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight",
                "blk.0.post_attention_norm.weight", "blk.0.ffn_norm.weight",
                "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight",
                "blk.0.post_ffw_norm.weight", "output_norm.weight"}));
  const Config config = config_of(Family::kGemma2);
  EXPECT_EQ(gguf_tensor_name(config, "model.layers.41.mlp.up_proj.weight"), "blk.41.ffn_up.weight");
  EXPECT_EQ(gguf_tensor_name(config, "lm_head.weight"), "output.weight");
}

std::set<std::string> key_names(const GgufMetadata& keys) {
  std::set<std::string> names;
  for (const auto& [key, value] : keys) names.insert(key);
  EXPECT_EQ(names.size(), keys.size());
  return names;
}

// Counts are u32 and numbers f32: readers look at the type too.
void expect_keys(const GgufMetadata& keys, const std::string& prefix,
                 const std::map<std::string, uint32_t>& counts,
                 const std::map<std::string, float>& numbers) {
  GgufContents contents;
  contents.metadata = keys;
  for (const auto& [key, expected] : counts) {
    const GgufValue* value = contents.find(prefix + key);
    ASSERT_TRUE(value != nullptr && std::holds_alternative<uint32_t>(*value)) << key;
    EXPECT_EQ(std::get<uint32_t>(*value), expected) << key;
  }
  for (const auto& [key, expected] : numbers) {
    const GgufValue* value = contents.find(prefix + key);
    ASSERT_TRUE(value != nullptr && std::holds_alternative<float>(*value)) << key;
    EXPECT_EQ(std::get<float>(*value), expected) << key;
  }
}

TEST(GgufModel, KeysOfGemma1) {
  const GgufMetadata keys = gguf_config(config_of(Family::kGemma1), "config.json");
  expect_keys(keys, "gemma.",
              {{"vocab_size", 300},
               {"context_length", 512},
               {"embedding_length", 96},
               {"block_count", 6},
               {"feed_forward_length", 160},
               {"attention.head_count", 4},
               {"attention.head_count_kv", 2},
               {"attention.key_length", 32},
               {"attention.value_length", 32}},
              {{"attention.layer_norm_rms_epsilon", 1e-6f}, {"rope.freq_base", 10000}});
  EXPECT_EQ(keys.size(), 11u);
}

TEST(GgufModel, KeysOfGemma2) {
  const Json changes = {{"attn_logit_softcapping", 5}, {"final_logit_softcapping", 3}};
  const GgufMetadata keys = gguf_config(config_of(Family::kGemma2, changes), "config.json");
  expect_keys(keys, "gemma2.",
              {{"attention.sliding_window", 24}, {"attention.sliding_window_pattern", 2}},
              {{"attn_logit_softcapping", 5},
               {"final_logit_softcapping", 3},
               {"rope.freq_base", 10000},
               {"rope.freq_base_swa", 10000}});
  EXPECT_EQ(keys.size(), 16u);
}

TEST(GgufModel, KeysOfGemma3) {
  const Json scaled = {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 8}}}};
  const GgufMetadata keys = gguf_config(config_of(Family::kGemma3, scaled), "config.json");
  expect_keys(keys, "gemma3.",
              {{"attention.sliding_window", 24}, {"attention.sliding_window_pattern", 6}},
              {{"rope.scaling.factor", 8}, {"rope.freq_base", 1e6f}, {"rope.freq_base_swa", 1e4f}});
  EXPECT_EQ(keys.size(), 16u);
  const std::pair<std::string, GgufValue> linear = {"gemma3.rope.scaling.type",
                                                    std::string("linear")};
  EXPECT_EQ(std::count(keys.begin(), keys.end(), linear), 1);
  const auto plain = key_names(gguf_config(config_of(Family::kGemma3), "config.json"));
  EXPECT_EQ(plain.count("gemma3.rope.scaling.factor"), 0u);
  EXPECT_EQ(plain.count("gemma3.rope.scaling.type"), 0u);
  const Json thirds = {{"sliding_window_pattern", 3}};
  expect_keys(gguf_config(config_of(Family::kGemma3, thirds), "config.json"), "gemma3.",
              {{"attention.sliding_window_pattern", 3}}, {});
}

TEST(GgufModel, RefusesWhatLlamaCppCannotDo) {
  const auto message = [](Family family, const Json& changes) {
    const Config config = config_of(family, changes);
    return error_of([&] { gguf_config(config, "config.json"); });
  };
  const std::string s = "sliding_attention", f = "full_attention";
  for (const Family family : {Family::kGemma2, Family::kGemma3})
    EXPECT_EQ(message(family, {{"layer_types", {s, f, f, s, s, f}}}).substr(0, 61),
              "config.json: field 'layer_types': full layers at irregular pl");
  const Json sliding_scale = {{"rope_parameters",
                               {{"sliding_attention", {{"rope_type", "linear"}, {"factor", 2}}},
                                {"full_attention", {{"rope_type", "default"}}}}}};
  EXPECT_EQ(message(Family::kGemma3, sliding_scale),
            "config.json: field 'rope_parameters': positions of sliding layers divided by 2, which "
            "llama.cpp's gemma3 cannot do");
  for (const char* field : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    const std::string where = std::string("config.json: field '") + field + "': ";
    EXPECT_EQ(message(Family::kGemma2, {{field, nullptr}}),
              where + "none, which llama.cpp's gemma2 cannot do");
    EXPECT_EQ(message(Family::kGemma3, {{field, 30}}),
              where + "30, which llama.cpp's gemma3 cannot do");
  }
  for (const Family family : {Family::kGemma1, Family::kGemma2})
    EXPECT_EQ(message(family, {{"tie_word_embeddings", false}}).substr(0, 41),
              "config.json: field 'tie_word_embeddings':");
  EXPECT_EQ(message(Family::kGemma3, {{"tie_word_embeddings", false}}), "no error");
}

TEST(GgufModel, QueryFactorMakesUpForTheFixedScale) {
  EXPECT_EQ(gguf_query_factor(config_of(Family::kGemma1)), 1);
  EXPECT_EQ(gguf_query_factor(config_of(Family::kGemma2)), 1);
  for (const Family family : {Family::kGemma2, Family::kGemma3})
    EXPECT_EQ(gguf_query_factor(config_of(family, {{"query_pre_attn_scalar", 8}})), 2);
  // By the number of layers these are 27B models, which divide by hidden_size / heads = 24.
  EXPECT_EQ(gguf_query_factor(config_of(Family::kGemma2,
                                        {{"num_hidden_layers", 46}, {"query_pre_attn_scalar", 6}})),
            2);
  EXPECT_EQ(gguf_query_factor(config_of(
                Family::kGemma3, {{"num_hidden_layers", 62}, {"query_pre_attn_scalar", 24}})),
            1);
  EXPECT_EQ(gguf_query_factor(config_of(
                Family::kGemma3, {{"num_hidden_layers", 46}, {"query_pre_attn_scalar", 32}})),
            1);
}

}  // namespace
}  // namespace lapidary
