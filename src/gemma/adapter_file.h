// Adapters in files, in any of the formats.
//
//   PEFT   base_model.model.PATH.lora_A.weight [rank, K], .lora_B.weight [N, rank]
//   MLX    PATH.lora_a [K, rank], PATH.lora_b [rank, N]
//   GGUF   TENSOR.lora_a [rank, K], TENSOR.lora_b [N, rank]
//
// PATH is that of a module in the live model, which has other prefixes where it has an image
// encoder (names.h).
#pragma once

#include <filesystem>
#include <string>

#include "lapidary/adapter.h"

#include "base/dtype.h"
#include "gemma/adapter.h"

namespace lapidary {

struct AdapterFile {
  Adapter adapter = {};
  AdapterFormat format = AdapterFormat::kPeft;
  DType dtype = DType::kF32;    // that holds every factor
  std::string base_model = {};  // that it says it was made for
  bool multimodal = false;      // names as of a model with an image encoder
};

// Throws Error{kInput}, as describe_adapter.
AdapterFile load_adapter(const std::filesystem::path& path);

// Loads an adapter and lets the model's matrices add it (adapter.h). Throws as both, naming `path`,
// and Error{kUsage} for a strength that is no number.
Adapter load_and_attach(const std::filesystem::path& path, double strength, const Config& config,
                        Weights& weights);

// Puts the files of a format into a folder that is there. Throws Error{kResource}.
void write_peft_adapter(const AdapterFile& file, const std::filesystem::path& folder);
void write_mlx_adapter(const AdapterFile& file, const std::filesystem::path& folder);
// `config` is that of the model: llama.cpp takes an adapter for its own architecture alone.
void write_gguf_adapter(const AdapterFile& file, const Config& config,
                        const std::filesystem::path& path);

// A whole adapter in `format`, at `out` when it is complete. `config` may be nullptr but for GGUF.
// Throws Error{kInput} when `out` is there already and may not be replaced, or is no adapter, and
// for DoRA in GGUF, which has no place for it.
void save_adapter(const AdapterFile& file, AdapterFormat format, const std::filesystem::path& out,
                  bool overwrite, const Config* config = nullptr);
// What it refuses of the place, to be known before the work.
void check_adapter_target(const std::filesystem::path& out, AdapterFormat format, bool overwrite);

AdapterSummary summary_of(const AdapterFile& file);

}  // namespace lapidary
