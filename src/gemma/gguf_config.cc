// A model's configuration from the keys of a GGUF file, as llama.cpp reads them.
#include <algorithm>
#include <array>

#include "lapidary/log.h"

#include "base/fail.h"
#include "gemma/config_parse.h"
#include "gemma/gguf_model.h"
#include "io/gguf_keys.h"
#include "io/printable.h"
#include "tensor/tensor.h"

namespace lapidary {

namespace {

struct Architecture {
  std::string_view name;
  std::string_view model_type;
  Family family;
  int pattern;         // every n-th layer is full
  int sliding_window;  // 0: of the file, or all layers are full
  double softcapping_attention, softcapping_final;
};
// What llama.cpp takes for granted.
constexpr std::array kArchitectures = {
    Architecture{"gemma", "gemma", Family::kGemma1, 1, 0, 0, 0},
    Architecture{"gemma2", "gemma2", Family::kGemma2, 2, 4096, 50, 30},
    Architecture{"gemma3", "gemma3_text", Family::kGemma3, 6, 0, 0, 0},
};
constexpr double kTheta = 1e4;

constexpr std::string_view kKnownKeys[] = {
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "attn_logit_softcapping",
    "final_logit_softcapping",
};

const Architecture& find_architecture(const GgufKeys& keys) {
  const std::string& name = keys.string("general.architecture");
  for (const Architecture& known : kArchitectures)
    if (name == known.name) return known;
  keys.fail_key(
      "general.architecture",
      fmt::format("'{}' is not supported, expected gemma, gemma2 or gemma3", printable(name)));
}

// The keys of one architecture.
class Reader {
 public:
  Reader(const GgufKeys& keys, const Architecture& architecture)
      : keys_(keys), prefix_(std::string(architecture.name) + ".") {}

  std::string full(std::string_view key) const { return prefix_ + std::string(key); }
  [[noreturn]] void fail_key(std::string_view key, const std::string& problem) const {
    keys_.fail_key(full(key), problem);
  }
  bool has(std::string_view key) const { return keys_.has(full(key)); }
  // In [1, max].
  int count(std::string_view key, int max) const {
    return static_cast<int>(keys_.integer(full(key), 1, max));
  }
  int count(std::string_view key, int max, int absent) const {
    return has(key) ? count(key, max) : absent;
  }
  double positive(std::string_view key, double absent) const {
    const double value = keys_.find_number(full(key)).value_or(absent);
    if (!(value > 0)) fail_key(key, fmt::format("expected a number above 0, found {}", value));
    return value;
  }
  // 0: none.
  double softcap(std::string_view key, double absent) const {
    const double value = keys_.find_number(full(key)).value_or(absent);
    if (!(value >= 0)) fail_key(key, fmt::format("expected 0 or more, found {}", value));
    return value;
  }
  std::string string(std::string_view key, const char* absent) const {
    return has(key) ? keys_.string(full(key)) : absent;
  }

  void name_unknown_keys(const GgufContents& contents) const {
    for (const auto& [key, value] : contents.metadata) {
      if (!key.starts_with(prefix_)) continue;
      const std::string_view rest = std::string_view(key).substr(prefix_.size());
      if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), rest) == std::end(kKnownKeys))
        log(LogLevel::kWarning,
            fmt::format("{}: key '{}' is not known and left out", keys_.where(), printable(key)));
    }
  }

 private:
  const GgufKeys& keys_;
  std::string prefix_;
};

void read_sizes(const Reader& in, Config& config) {
  config.max_position_embeddings = in.count("context_length", kMaxTokens);
  config.hidden_size = in.count("embedding_length", kMaxWidth);
  config.num_hidden_layers = in.count("block_count", kMaxCount);
  config.intermediate_size = in.count("feed_forward_length", kMaxWidth);
  config.num_attention_heads = in.count("attention.head_count", kMaxCount);
  config.num_key_value_heads =
      in.count("attention.head_count_kv", kMaxCount, config.num_attention_heads);
  config.head_dim = in.count("attention.key_length", kMaxCount,
                             std::max(1, config.hidden_size / config.num_attention_heads));
  const auto same = [&](const char* key, int expected) {
    const int found = in.count(key, kMaxTokens, expected);
    if (found != expected) in.fail_key(key, fmt::format("expected {}, found {}", expected, found));
  };
  same("attention.value_length", config.head_dim);
  same("rope.dimension_count", config.head_dim);
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    in.fail_key("attention.head_count_kv",
                fmt::format("expected a divisor of head_count {}, found {}",
                            config.num_attention_heads, config.num_key_value_heads));
  if (config.head_dim % 2 != 0)
    in.fail_key("attention.key_length",
                fmt::format("expected an even number, found {}", config.head_dim));
}

// The rows of the embedding; what else says so must agree.
void read_vocabulary_size(const Reader& in, const GgufContents& contents, const GgufKeys& keys,
                          Config& config) {
  constexpr std::string_view kEmbedding = "token_embd.weight";
  const GgufTensor* table = contents.find_tensor(kEmbedding);
  if (table == nullptr) fail("{}: tensor {} is missing", keys.where(), kEmbedding);
  const int64_t rows = table->shape.front();
  if (table->shape.size() != 2 || rows > kMaxTokens)
    fail("{}: tensor {}: shape {}, expected [vocabulary, {}]", keys.where(), kEmbedding,
         shape_string(table->shape), config.hidden_size);
  config.vocab_size = static_cast<int>(rows);
  if (const int said = in.count("vocab_size", kMaxTokens, config.vocab_size);
      said != config.vocab_size)
    in.fail_key("vocab_size", fmt::format("{}, but {} has {} rows", said, kEmbedding, rows));
  constexpr const char* kTokens = "tokenizer.ggml.tokens";
  if (!keys.has(kTokens)) return;
  if (const auto tokens = std::ssize(keys.list<std::string>(kTokens)); tokens != rows)
    keys.fail_key(kTokens, fmt::format("{} tokens, but {} has {} rows", tokens, kEmbedding, rows));
}

void read_layers(const Reader& in, const Architecture& architecture, Config& config) {
  int pattern = architecture.pattern;
  if (config.family != Family::kGemma1) {
    const bool sliding = architecture.sliding_window > 0 || in.has("attention.sliding_window");
    pattern = sliding ? in.count("attention.sliding_window_pattern", kMaxCount, pattern) : 1;
    if (pattern > 1)
      config.sliding_window =
          in.count("attention.sliding_window", kMaxTokens, architecture.sliding_window);
  }
  for (int i = 0; i < config.num_hidden_layers; ++i)
    config.layer_types.push_back((i + 1) % pattern == 0 ? LayerType::kFull : LayerType::kSliding);
}

// Gemma 3 alone has other frequencies in its sliding layers, which are never scaled.
void read_rope(const Reader& in, Config& config) {
  config.rope_full.theta = in.positive("rope.freq_base", kTheta);
  const std::string type = in.string("rope.scaling.type", "linear");
  if (type != "linear" && type != "none")
    in.fail_key("rope.scaling.type",
                fmt::format("'{}' is not supported, expected linear or none", printable(type)));
  const double factor = in.positive("rope.scaling.factor", in.positive("rope.scale_linear", 1));
  if (type == "linear") config.rope_full.factor = factor;
  config.rope_sliding = config.rope_full;
  if (config.family == Family::kGemma3) config.rope_sliding = {.theta = kTheta, .factor = 1};
  config.rope_sliding.theta = in.positive("rope.freq_base_swa", config.rope_sliding.theta);
}

}  // namespace

Config read_gguf_config(const GgufContents& contents, const std::string& where) {
  const GgufKeys keys(contents, where);
  const Architecture& architecture = find_architecture(keys);
  const Reader in(keys, architecture);
  Config config;
  config.family = architecture.family;
  config.model_type = architecture.model_type;
  read_sizes(in, config);
  read_vocabulary_size(in, contents, keys, config);
  read_layers(in, architecture, config);
  read_rope(in, config);
  constexpr const char* kEpsilon = "attention.layer_norm_rms_epsilon";
  if (!in.has(kEpsilon)) in.fail_key(kEpsilon, "missing");
  config.rms_norm_eps = in.positive(kEpsilon, 0);
  config.query_pre_attn_scalar = gguf_query_scalar(config);
  if (config.family == Family::kGemma2)
    config.attn_logit_softcapping =
        in.softcap("attn_logit_softcapping", architecture.softcapping_attention);
  if (config.family != Family::kGemma1)
    config.final_logit_softcapping =
        in.softcap("final_logit_softcapping", architecture.softcapping_final);
  config.tie_word_embeddings =
      config.family != Family::kGemma3 || contents.find_tensor("output.weight") == nullptr;
  in.name_unknown_keys(contents);
  return config;
}

GenerationConfig read_gguf_generation_config(const GgufContents& contents,
                                             const std::string& where) {
  const GgufKeys keys(contents, where);
  GenerationConfig result;
  const auto add = [&](std::optional<int64_t> id) {
    if (!id) return;
    const auto token = static_cast<Token>(*id);
    if (std::ranges::find(result.eos_token_id, token) == result.eos_token_id.end())
      result.eos_token_id.push_back(token);
  };
  constexpr const char* kTokens = "tokenizer.ggml.tokens";
  const int64_t last =
      keys.has(kTokens) ? std::ssize(keys.list<std::string>(kTokens)) - 1 : kMaxTokens;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    add(keys.find_integer(key, 0, last));
  if (keys.has(kTokens)) {
    const auto& tokens = keys.list<std::string>(kTokens);
    const auto turn = std::ranges::find(tokens, "<end_of_turn>");
    if (turn != tokens.end()) add(turn - tokens.begin());
  }
  if (result.eos_token_id.empty()) result.eos_token_id = {1};  // <eos> of every Gemma

  const auto number = [&](const char* key, double most) {
    const auto value = keys.find_number(key);
    if (value && !(*value >= 0 && *value <= most))
      keys.fail_key(key, fmt::format("expected 0 to {}, found {}", most, *value));
    return value;
  };
  result.temperature = number("general.sampling.temp", 100);
  result.top_p = number("general.sampling.top_p", 1);
  if (const auto top_k = keys.find_integer("general.sampling.top_k", 0, kMaxTokens))
    result.top_k = static_cast<int>(*top_k);
  return result;
}

}  // namespace lapidary
