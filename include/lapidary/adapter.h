// room: gemma
// Low-rank adapters in files: what they are, and from one format into another. Engine::load takes
// them (engine.h), fuse.h makes them part of a model, blend.h makes one of several.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lapidary {

enum class AdapterFormat {
  kPeft,  // a folder: adapter_config.json, adapter_model.safetensors
  kMlx,   // a folder: adapter_config.json, adapters.safetensors
  kGguf,  // a file for llama.cpp
};
const char* name_of(AdapterFormat format);                  // "peft"
AdapterFormat adapter_format_named(std::string_view name);  // throws Error{kUsage}

struct AdapterSummary {
  struct Matrix {
    std::string target;  // "model.layers.0.self_attn.q_proj"
    int64_t rows = 0, cols = 0;
    int64_t rank = 0;
    double scale = 1;  // of the product of the factors
  };
  AdapterFormat format = AdapterFormat::kPeft;
  std::string base_model = {};  // that it says it was made for; may be empty
  std::string dtype = {};       // of its factors: "F32"
  bool multimodal = false;      // its names are those of a model with an image encoder
  bool dora = false;            // it has lengths of the matrices' rows besides (arXiv 2402.09353)
  std::vector<Matrix> matrices = {};
  int64_t parameters = 0;
};

// Reads an adapter: a folder, of which its adapter_config.json says the format; a file of factors
// in such a folder, as 0000100_adapters.safetensors; or a GGUF file. Throws Error{kInput} naming
// the file and the field or tensor for whatever is wrong with it, or is not low-rank updates of a
// Gemma layer's matrices alone.
AdapterSummary describe_adapter(const std::filesystem::path& path);

struct AdapterConversion {
  AdapterFormat format = AdapterFormat::kPeft;
  // The model it is for: its names and shapes must fit. GGUF needs one, for its architecture.
  std::filesystem::path model = {};
  bool overwrite = false;  // replace an adapter that is there already
};

// Writes an adapter in another format; `out` is there whole or not at all. Factors keep their bits,
// but where the format has one scale for all matrices and the adapter several: they are multiplied
// into the factors then. Throws Error{kUsage} for GGUF without a model, Error{kInput} as
// describe_adapter, when the model does not fit or `out` is there already, Error{kResource}.
AdapterSummary convert_adapter(const std::filesystem::path& in, const std::filesystem::path& out,
                               const AdapterConversion& options);

}  // namespace lapidary
