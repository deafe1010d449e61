#include "gemma/gguf_model.h"

#include <cmath>
#include <utility>

#include "base/fail.h"
#include "gemma/config_parse.h"

namespace lapidary {

namespace {

using NamePair = std::pair<std::string_view, std::string_view>;

// In Gemma 1 the norm before the MLP is called post_attention_layernorm.
constexpr NamePair kGemma1Norm = {"post_attention_layernorm", "ffn_norm"};
constexpr NamePair kLayerNames[] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
};
constexpr NamePair kModelNames[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};

template <size_t count>
std::string_view look_up(const NamePair (&names)[count], std::string_view name) {
  for (const auto& [ours, theirs] : names)
    if (ours == name) return theirs;
  LAPIDARY_CHECK(false, fmt::format("no name for '{}'", name));
}

// The layers of the two 27B models, by which llama.cpp knows them.
bool counts_as_27b(const Config& c) {
  return (c.family == Family::kGemma2 && c.num_hidden_layers == 46) ||
         (c.family == Family::kGemma3 && c.num_hidden_layers == 62);
}

void check_expressible(const Config& c, const std::string& where) {
  const auto refuse = [&](std::string_view field, std::string_view problem) {
    fail("{}: field '{}': {}, which llama.cpp's {} cannot do", where, field, problem,
         gguf_architecture(c));
  };
  if (c.family != Family::kGemma1 && sliding_pattern(c) == 0)
    refuse("layer_types", "full layers at irregular places");
  if (c.family == Family::kGemma3 && c.rope_sliding.factor != 1)  // others scale all layers alike
    refuse("rope_parameters",
           fmt::format("positions of sliding layers divided by {}", c.rope_sliding.factor));
  for (const auto& [field, cap] : {std::pair{"attn_logit_softcapping", c.attn_logit_softcapping},
                                   {"final_logit_softcapping", c.final_logit_softcapping}}) {
    if (c.family == Family::kGemma2 && cap == 0) refuse(field, "none");
    if (c.family != Family::kGemma2 && cap != 0) refuse(field, fmt::format("{}", cap));
  }
  if (!c.tie_word_embeddings && c.family != Family::kGemma3)
    refuse("tie_word_embeddings", "an output matrix beside the embedding");
}

}  // namespace

std::string gguf_tensor_name(const Config& config, std::string_view name) {
  constexpr std::string_view kLayers = "model.layers.", kWeight = ".weight";
  name.remove_suffix(kWeight.size());
  if (!name.starts_with(kLayers)) return fmt::format("{}.weight", look_up(kModelNames, name));
  name.remove_prefix(kLayers.size());
  const size_t dot = name.find('.');
  const std::string_view part = name.substr(dot + 1);
  const bool gemma1_norm = config.family == Family::kGemma1 && part == kGemma1Norm.first;
  return fmt::format("blk.{}.{}.weight", name.substr(0, dot),
                     gemma1_norm ? kGemma1Norm.second : look_up(kLayerNames, part));
}

std::string gguf_architecture(const Config& config) {
  return config.family == Family::kGemma1 ? "gemma" : fmt::format("gemma{}", int(config.family));
}

GgufMetadata gguf_config(const Config& c, const std::string& where) {
  check_expressible(c, where);
  GgufMetadata keys;
  const std::string prefix = gguf_architecture(c) + ".";
  const auto count = [&](const char* key, int value) {
    keys.emplace_back(prefix + key, static_cast<uint32_t>(value));
  };
  const auto number = [&](const char* key, double value) {
    keys.emplace_back(prefix + key, static_cast<float>(value));
  };
  count("vocab_size", c.vocab_size);
  count("context_length", c.max_position_embeddings);
  count("embedding_length", c.hidden_size);
  count("block_count", c.num_hidden_layers);
  count("feed_forward_length", c.intermediate_size);
  count("attention.head_count", c.num_attention_heads);
  count("attention.head_count_kv", c.num_key_value_heads);
  count("attention.key_length", c.head_dim);
  count("attention.value_length", c.head_dim);
  number("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  number("rope.freq_base", c.rope_full.theta);
  if (c.rope_full.factor != 1) {
    keys.emplace_back(prefix + "rope.scaling.type", std::string("linear"));
    number("rope.scaling.factor", c.rope_full.factor);
  }
  if (c.family == Family::kGemma1) return keys;
  number("rope.freq_base_swa", c.rope_sliding.theta);
  count("attention.sliding_window", c.sliding_window);
  count("attention.sliding_window_pattern", sliding_pattern(c));
  if (c.family == Family::kGemma2) {
    number("attn_logit_softcapping", c.attn_logit_softcapping);
    number("final_logit_softcapping", c.final_logit_softcapping);
  }
  return keys;
}

int gguf_query_scalar(const Config& c) {
  return counts_as_27b(c) ? c.hidden_size / c.num_attention_heads : c.head_dim;
}

double gguf_query_factor(const Config& c) {
  return std::sqrt(gguf_query_scalar(c) / c.query_pre_attn_scalar);
}

}  // namespace lapidary
