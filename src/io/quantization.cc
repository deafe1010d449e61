#include "io/quantization.h"

#include <algorithm>
#include <array>

#include <fmt/ranges.h>

#include "base/fail.h"
#include "io/names.h"
#include "io/printable.h"

namespace lapidary {

namespace {

constexpr std::array<int64_t, 6> kBits = {2, 3, 4, 5, 6, 8};
constexpr std::array<int64_t, 3> kGroupSizes = {32, 64, 128};

template <size_t N>
int one_of(const std::array<int64_t, N>& allowed, const JsonObject& block, const char* key,
           int64_t value) {
  if (std::find(allowed.begin(), allowed.end(), value) == allowed.end())
    block.fail_field(key,
                     fmt::format("expected one of {}, found {}", fmt::join(allowed, ", "), value));
  return static_cast<int>(value);
}

void check_mode(const JsonObject& block) {
  const std::string mode = block.string("mode", "affine");
  if (mode != "affine")
    block.fail_field("mode",
                     fmt::format("'{}' is not supported, expected 'affine'", printable(mode)));
}

// A module's own block. What it leaves out is 4 bits in groups of 64 whatever the defaults of the
// model are: MLX passes the block on to the module, which knows nothing of the model's.
AffineQuantization parse_override(const JsonObject& block) {
  for (const auto& item : block.json().items()) {
    const std::string& key = item.key();
    if (key != "bits" && key != "group_size" && key != "mode")
      block.fail_field(printable(key), "unknown, expected bits, group_size or mode");
  }
  check_mode(block);
  const AffineQuantization absent;
  return {one_of(kBits, block, "bits", block.integer("bits", absent.bits)),
          one_of(kGroupSizes, block, "group_size", block.integer("group_size", absent.group_size))};
}

QuantizationSpec parse_block(const JsonObject& block) {
  if (block.has("quant_method"))
    block.fail_field("quant_method",
                     fmt::format("{} is not supported, expected weights that MLX quantised or none",
                                 shown_json(block.raw("quant_method"))));
  check_mode(block);
  QuantizationSpec spec;
  spec.defaults.bits = one_of(kBits, block, "bits", block.integer("bits"));
  spec.defaults.group_size = one_of(kGroupSizes, block, "group_size", block.integer("group_size"));
  for (const auto& [key, value] : block.json().items()) {
    if (key == "bits" || key == "group_size" || key == "mode" || key == "quant_method") continue;
    std::optional<AffineQuantization> own;
    if (value.is_object())
      own = parse_override(JsonObject(value, fmt::format("{}: {}", block.where(), printable(key))));
    else if (value.is_boolean())
      own = value.get<bool>() ? std::optional(spec.defaults) : std::nullopt;
    else
      block.fail_field(printable(key), "expected an object or false for a module's path");
    const auto [it, added] = spec.overrides.emplace(canonical_name(key), own);
    if (!added && it->second != own)
      block.fail_field(printable(key),
                       fmt::format("contradicts another prefix of '{}'", printable(it->first)));
  }
  return spec;
}

}  // namespace

std::optional<AffineQuantization> QuantizationSpec::lookup(std::string_view path) const {
  const auto it = overrides.find(canonical_name(path));
  return it == overrides.end() ? std::optional(defaults) : it->second;
}

std::optional<QuantizationSpec> parse_quantization(const JsonObject& config) {
  // MLX writes both, the second for other programs to see, and reads the first.
  for (const char* key : {"quantization", "quantization_config"})
    if (config.has(key)) return parse_block(config.object(key));
  return std::nullopt;
}

Json quantization_json(const QuantizationSpec& spec) {
  const auto block = [](const AffineQuantization& q) {
    return Json{{"group_size", q.group_size}, {"bits", q.bits}};
  };
  Json json = block(spec.defaults);
  json["mode"] = "affine";
  for (const auto& [path, own] : spec.overrides) json[path] = own ? block(*own) : Json(false);
  return json;
}

}  // namespace lapidary
