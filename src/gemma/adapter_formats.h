// Readers of the formats, for adapter_file.cc, which tells which one a path is.
#pragma once

#include <filesystem>

#include "base/json.h"
#include "gemma/adapter_file.h"

namespace lapidary {

// `json` is what `config` holds, with the keys in its order, which decides among patterns.
AdapterFile read_peft_adapter(const OrderedJson& json, const std::filesystem::path& config,
                              const std::filesystem::path& tensors);
AdapterFile read_mlx_adapter(const OrderedJson& json, const std::filesystem::path& config,
                             const std::filesystem::path& tensors);
AdapterFile read_gguf_adapter(const std::filesystem::path& path);

}  // namespace lapidary
