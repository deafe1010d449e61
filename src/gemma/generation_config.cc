#include "gemma/generation_config.h"

#include <cmath>
#include <filesystem>

#include "base/fail.h"
#include "gemma/config_parse.h"

namespace lapidary {

namespace {

constexpr int64_t kMaxToken = 10'000'000;

Token parse_token(const Json& value, const JsonObject& object, std::string_view key) {
  const bool fits =
      value.is_number_integer() && value.get<int64_t>() >= 0 && value.get<int64_t>() < kMaxToken;
  if (!fits)
    object.fail_field(
        key, fmt::format("expected a token id or a list of them, found {}", shown_json(value)));
  return value.get<Token>();
}

// Empty when the file does not say.
std::vector<Token> parse_eos(const JsonObject& object) {
  constexpr std::string_view kKey = "eos_token_id";
  if (!object.has(kKey)) return {};
  const Json& value = object.raw(kKey);
  if (!value.is_array()) return {parse_token(value, object, kKey)};
  if (value.empty()) object.fail_field(kKey, "expected a token id or a list of them, found []");
  std::vector<Token> ids;
  for (const Json& id : value) ids.push_back(parse_token(id, object, kKey));
  return ids;
}

std::optional<double> parse_number(const JsonObject& object, std::string_view key, double max) {
  if (!object.has(key)) return std::nullopt;
  const double value = object.number(key);
  if (!(value >= 0 && value <= max))
    object.fail_field(key, fmt::format("expected 0 to {}, found {}", max, value));
  return value;
}

}  // namespace

GenerationConfig parse_generation_config(const Json& generation, const std::string& where,
                                         const Json& config, const std::string& config_where) {
  GenerationConfig result;
  if (!generation.is_null()) {
    const JsonObject object(generation, where);
    result.eos_token_id = parse_eos(object);
    if (object.boolean("do_sample", true)) {  // false: greedy, whatever else is said
      result.temperature = parse_number(object, "temperature", 100);
      result.top_p = parse_number(object, "top_p", 1);
      if (const auto top_k = parse_number(object, "top_k", kMaxToken))
        result.top_k = static_cast<int>(object.integer("top_k"));
    }
  }
  if (result.eos_token_id.empty() && !config.is_null()) {
    const JsonObject object(config, config_where);
    result.eos_token_id = parse_eos(object);
    if (result.eos_token_id.empty() && object.has("text_config"))
      result.eos_token_id = parse_eos(object.object("text_config"));
  }
  if (result.eos_token_id.empty()) result.eos_token_id = {1};  // <eos> of every Gemma
  return result;
}

GenerationConfig read_generation_config(const std::filesystem::path& folder) {
  const auto read = [](const std::filesystem::path& path) {
    return std::filesystem::exists(path) ? read_json_file(path) : Json();
  };
  const std::filesystem::path generation = folder / "generation_config.json";
  const std::filesystem::path config = folder / "config.json";
  return parse_generation_config(read(generation), generation.string(), read(config),
                                 config.string());
}

std::string generation_config_json(const GenerationConfig& config) {
  OrderedJson json = {{"bos_token_id", 2}};
  if (config.temperature || config.top_k || config.top_p) json["do_sample"] = true;
  json["eos_token_id"] = config.eos_token_id;
  json["pad_token_id"] = 0;
  if (config.temperature) json["temperature"] = *config.temperature;
  if (config.top_k) json["top_k"] = *config.top_k;
  if (config.top_p) json["top_p"] = *config.top_p;
  return json.dump(2) + "\n";
}

}  // namespace lapidary
