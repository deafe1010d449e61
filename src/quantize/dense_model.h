// What quantising starts from.
#pragma once

#include <filesystem>

#include "gemma/load.h"

namespace lapidary {

// Throws as load_model, and Error{kInput} for a GGUF file and for weights that are quantised.
Model load_dense(const std::filesystem::path& folder);

}  // namespace lapidary
