// Any text as config.json: each reader of it either throws Error or gives values in range, and
// what config_json writes of them is read back.
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>

#include "lapidary/error.h"

#include "gemma/config_parse.h"
#include "io/quantization.h"

namespace {

using lapidary::Json;

void expect_error_of_one_line(const std::function<void()>& action) {
  try {
    action();
  } catch (const lapidary::Error& e) {
    if (std::string(e.what()).find('\n') != std::string::npos) std::abort();
  }
}

void check_config(const Json& json) {
  const lapidary::Config config = lapidary::parse_config(json, "fuzz");
  if (config.q_dim() <= 0 || config.kv_dim() <= 0 || config.q_dim() % config.kv_dim() != 0)
    std::abort();
  if (config.layer_types.size() != static_cast<size_t>(config.num_hidden_layers)) std::abort();
  if (!(config.rope_full.theta > 0 && config.rope_sliding.factor > 0)) std::abort();
  const std::string text = lapidary::config_json(config, "bfloat16");
  const lapidary::Config again =
      lapidary::parse_config(lapidary::parse_json(text, "again"), "again");
  if (again.layer_types != config.layer_types || again.rope_full.theta != config.rope_full.theta ||
      again.query_pre_attn_scalar != config.query_pre_attn_scalar)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  expect_error_of_one_line([&] {
    const Json json = lapidary::parse_json(text, "fuzz");
    expect_error_of_one_line([&] { check_config(json); });
    expect_error_of_one_line([&] { lapidary::parse_generation_config(json, "g", json, "c"); });
    expect_error_of_one_line(
        [&] { lapidary::parse_quantization(lapidary::JsonObject(json, "fuzz")); });
  });
  return 0;
}
