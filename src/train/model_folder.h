// A trained model as a folder that other tools read.
#pragma once

#include <filesystem>
#include <optional>

#include "gemma/load.h"
#include "gemma/set_block.h"

namespace lapidary {

// Writes the model's weights as they are in memory, dense, in the type that its folder says, or in
// bf16 where that was quantised, beside copies of the folder's other files. The folder is there
// whole or not at all, and replaces one that an earlier run left. `set_block`: what config.json is
// to say of training on set blocks; without it what the folder's says stays. Throws
// Error{kResource}.
void write_model_folder(const Model& model, const std::filesystem::path& source,
                        const std::filesystem::path& out,
                        const std::optional<SetBlockTraining>& set_block = {});

}  // namespace lapidary
