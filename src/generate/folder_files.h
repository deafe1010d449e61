// The files of a model folder other than its weights, on their way into a converted one, or made of
// what a GGUF file has.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "gemma/load.h"
#include "io/quantization.h"

namespace lapidary {

// Where a converted model came from.
struct Provenance {
  std::string source;   // the name of the folder or GGUF file, not where it lies
  std::string version;  // of lapidary
  std::string settings;
  // Of the source's index of shards where there is one, else of its weights: file name, hash.
  std::vector<std::pair<std::string, std::string>> sha256;
};
// Reads the weights once where there is no index; `read` is as in hash.h.
Provenance provenance_of(const Model& model, std::string settings,
                         const std::function<void(int64_t bytes)>& read);

// For the header of safetensors files, beside `format` ("mlx" or "pt").
Metadata metadata_of(const Provenance& provenance, const std::string& format);

// Writes config.json: `config` with the keys of the quantisation replaced by those of `spec` or
// taken out, and every key that says a type set to `torch_dtype` unless that is empty.
void write_config(OrderedJson config, const std::filesystem::path& to,
                  const std::optional<QuantizationSpec>& spec, const std::string& torch_dtype);

// Writes README.md: the source's, if it has one, and a section on where the model came from.
void write_readme(const std::filesystem::path& from, const std::filesystem::path& to,
                  const Provenance& provenance);

// Copies the other files of the model: tokenizer, generation settings, chat template and whatever
// else lies in the folder itself, except hidden files, adapters, and weights in any format.
void copy_other_files(const std::filesystem::path& from, const std::filesystem::path& to);

// Writes what a GGUF file says besides its weights and configuration: generation_config.json,
// tokenizer.model unless the vocabulary is a placeholder, and chat_template.jinja if it has one.
// Throws as read_gguf_vocabulary.
void write_other_files(const GgufFile& from, const std::filesystem::path& to);

}  // namespace lapidary
