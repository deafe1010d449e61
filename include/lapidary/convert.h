// room: generate
// Models in the formats of other programs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "lapidary/progress.h"

namespace lapidary {

struct GgufOptions {
  std::string type = "f16";  // of matrices: "f32", "f16", "bf16", "q8_0" or "q4_0"; norms are f32
  bool overwrite = false;
  int threads = 0;  // 0: one per core this process may use; the bytes do not depend on it
};

struct GgufSummary {
  int64_t tensors = 0;
  int64_t bytes = 0;  // of the file
  // The folder has no tokenizer: token ids work in llama.cpp, text means nothing.
  bool placeholder_vocabulary = false;
};

// Writes the model of a folder, and its tokenizer, as one GGUF file that llama.cpp runs. The file
// is there whole or not at all; memory holds a few rows at a time. Throws Error{kUsage} for options
// that cannot be; Error{kInput} for what Engine::load refuses, when the file is there already and
// `overwrite` was not asked for, and naming the field or tensor that the format or llama.cpp has no
// place for; Error{kResource} when the disk does not do; and Error{kInterrupted} on a stop request.
GgufSummary export_gguf(const std::filesystem::path& folder, const std::filesystem::path& file,
                        const GgufOptions& options, const Watch& watch = {});

}  // namespace lapidary
