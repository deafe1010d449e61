#include <array>
#include <string_view>

#include <fmt/ranges.h>

#include "lapidary/synth.h"

#include "base/fail.h"

namespace lapidary {

namespace {

// The released sizes. Sources: the models' config.json files and technical reports.
struct Size {
  std::string_view name;
  Family family;
  int hidden, layers, heads, kv_heads, head_dim, ffn;
  int window;  // 0: every layer is full
  double query_scalar;
  int vocab;
  int context;
  double full_rope_factor;
};

using enum Family;
constexpr std::array kSizes = {
    Size{"gemma-2b", kGemma1, 2048, 18, 8, 1, 256, 16384, 0, 256, 256000, 8192, 1},
    Size{"gemma-7b", kGemma1, 3072, 28, 16, 16, 256, 24576, 0, 256, 256000, 8192, 1},
    Size{"gemma-2-2b", kGemma2, 2304, 26, 8, 4, 256, 9216, 4096, 256, 256000, 8192, 1},
    Size{"gemma-2-9b", kGemma2, 3584, 42, 16, 8, 256, 14336, 4096, 256, 256000, 8192, 1},
    Size{"gemma-2-27b", kGemma2, 4608, 46, 32, 16, 128, 36864, 4096, 144, 256000, 8192, 1},
    Size{"gemma-3-270m", kGemma3, 640, 18, 4, 1, 256, 2048, 512, 256, 262144, 32768, 1},
    Size{"gemma-3-1b", kGemma3, 1152, 26, 4, 1, 256, 6912, 512, 256, 262144, 32768, 1},
    Size{"gemma-3-4b", kGemma3, 2560, 34, 8, 4, 256, 10240, 1024, 256, 262208, 131072, 8},
    Size{"gemma-3-12b", kGemma3, 3840, 48, 16, 8, 256, 15360, 1024, 256, 262208, 131072, 8},
    Size{"gemma-3-27b", kGemma3, 5376, 62, 32, 16, 128, 21504, 1024, 168, 262208, 131072, 8},
};

// Gemma 2 alternates, the first layer sliding; of Gemma 3 every sixth layer is full.
std::vector<LayerType> layer_types(Family family, int layers) {
  const int full_every = family == kGemma1 ? 1 : family == kGemma2 ? 2 : 6;
  std::vector<LayerType> types;
  for (int i = 0; i < layers; ++i)
    types.push_back((i + 1) % full_every == 0 ? LayerType::kFull : LayerType::kSliding);
  return types;
}

void replace(int& size, const std::optional<int>& wanted, std::string_view name) {
  if (!wanted) return;
  if (*wanted < 1) fail_usage("{}: {} given, expected at least 1", name, *wanted);
  size = *wanted;
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Size& size : kSizes) names.emplace_back(size.name);
  return names;
}

Config preset(const std::string& name) {
  for (const Size& size : kSizes) {
    if (size.name != name) continue;
    Config c;
    c.family = size.family;
    c.model_type = size.family == kGemma1   ? "gemma"
                   : size.family == kGemma2 ? "gemma2"
                                            : "gemma3_text";
    c.vocab_size = size.vocab;
    c.hidden_size = size.hidden;
    c.intermediate_size = size.ffn;
    c.num_hidden_layers = size.layers;
    c.num_attention_heads = size.heads;
    c.num_key_value_heads = size.kv_heads;
    c.head_dim = size.head_dim;
    c.max_position_embeddings = size.context;
    c.sliding_window = size.window;
    c.layer_types = layer_types(size.family, size.layers);
    if (size.family == kGemma3) c.rope_full = {.theta = 1e6, .factor = size.full_rope_factor};
    c.query_pre_attn_scalar = size.query_scalar;
    if (size.family == kGemma2) {
      c.attn_logit_softcapping = 50;
      c.final_logit_softcapping = 30;
    }
    return c;
  }
  throw Error(ErrorKind::kUsage, fmt::format("preset '{}' does not exist", name),
              fmt::format("presets: {}", fmt::join(preset_names(), ", ")));
}

Config with_overrides(Config config, const ShapeOverrides& o) {
  const bool scalar_is_head_dim = config.query_pre_attn_scalar == config.head_dim;
  replace(config.num_hidden_layers, o.layers, "layers");
  replace(config.hidden_size, o.hidden, "hidden");
  replace(config.intermediate_size, o.ffn, "ffn");
  replace(config.num_attention_heads, o.heads, "heads");
  replace(config.num_key_value_heads, o.kv_heads, "kv-heads");
  replace(config.head_dim, o.head_dim, "head-dim");
  replace(config.vocab_size, o.vocab, "vocab");
  if (o.window && config.sliding_window == 0)
    fail_usage("window: {} given, but a Gemma 1 has no sliding layers", *o.window);
  replace(config.sliding_window, o.window, "window");
  if (scalar_is_head_dim) config.query_pre_attn_scalar = config.head_dim;
  config.layer_types = layer_types(config.family, config.num_hidden_layers);
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    fail_usage("kv-heads: {} do not divide {} heads", config.num_key_value_heads,
               config.num_attention_heads);
  if (config.head_dim % 16 != 0)
    fail_usage("head-dim: {} given, expected a multiple of 16", config.head_dim);
  return config;
}

}  // namespace lapidary
