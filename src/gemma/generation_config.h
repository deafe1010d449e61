// Writing generation_config.json.
#pragma once

#include <string>

#include "lapidary/config.h"

namespace lapidary {

// The text that read_generation_config reads back, with the ids of <bos> and <pad> of every Gemma.
std::string generation_config_json(const GenerationConfig& config);

}  // namespace lapidary
