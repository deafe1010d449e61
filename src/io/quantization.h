// What config.json says of weights that MLX has quantised.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace lapidary {

// MLX "affine": groups of `group_size` weights along the input axis, `bits` each, w = scale*q +
// bias.
struct AffineQuantization {
  int bits = 4;         // 2, 3, 4, 5, 6 or 8
  int group_size = 64;  // 32, 64 or 128

  friend bool operator==(const AffineQuantization&, const AffineQuantization&) = default;
};

struct QuantizationSpec {
  AffineQuantization defaults;
  // By canonical module path (`model.layers.0.mlp.down_proj`, see names.h); nullopt: left dense.
  std::map<std::string, std::optional<AffineQuantization>, std::less<>> overrides;

  // How the module at `path` (any prefix that names.h knows, without ".weight") is quantised if it
  // is: modules may be left dense without a word, and then have no `.scales` tensor. nullopt: the
  // file says that it is dense.
  std::optional<AffineQuantization> lookup(std::string_view path) const;
};

// The `quantization` block of a config.json, or `quantization_config`, its other name; nullopt when
// there is neither. Throws Error{kInput} for another quantiser's block (bitsandbytes, gptq, awq,
// …), a mode other than affine, bits or a group size that do not exist, and keys that mean nothing.
std::optional<QuantizationSpec> parse_quantization(const JsonObject& config);

// The block itself, as MLX writes it, for a config.json that is to be written. Overrides come out
// under their canonical paths.
Json quantization_json(const QuantizationSpec& spec);

}  // namespace lapidary
