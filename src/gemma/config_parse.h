// config.json and generation_config.json as JSON in memory: what read_config does, without files.
#pragma once

#include <string>

#include "lapidary/config.h"

#include "base/json.h"

namespace lapidary {

// No model comes near these; a file beyond them is damaged, and products of two still fit an int.
constexpr int kMaxWidth = 1'000'000;
constexpr int kMaxCount = 10'000;       // layers, heads, head_dim
constexpr int kMaxTokens = 10'000'000;  // vocabulary, positions, window

// `where` names the file in messages. Throws as read_config does.
Config parse_config(const Json& json, const std::string& where);

// Both may be null (JSON null): a file that is not there. Ids that end a generation are those of
// generation_config.json, else those of config.json, else {1}.
GenerationConfig parse_generation_config(const Json& generation, const std::string& where,
                                         const Json& config, const std::string& config_where);

// The n of "every n-th layer is full", 6 wherever that fits; 0 when the layers follow no such rule.
int sliding_pattern(const Config& config);

}  // namespace lapidary
