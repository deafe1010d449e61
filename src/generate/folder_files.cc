#include "generate/folder_files.h"

#include <algorithm>
#include <array>

#include "lapidary/log.h"

#include "base/fail.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gemma/generation_config.h"
#include "gemma/gguf_model.h"
#include "generate/chat_template.h"
#include "generate/gguf_vocabulary.h"
#include "io/hash.h"
#include "io/output_file.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kReadme = "README.md";

std::string read_text(const fs::path& path) {
  const MappedFile file = MappedFile::open(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

bool is_weights(const std::string& name) {
  constexpr std::array<const char*, 9> kEndings = {
      ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".h5", ".npz", ".onnx", ".msgpack"};
  return name.ends_with(".safetensors.index.json") || name.ends_with(".bin.index.json") ||
         std::any_of(kEndings.begin(), kEndings.end(),
                     [&](const char* ending) { return name.ends_with(ending); });
}

void set_dtype(OrderedJson& config, const std::string& torch_dtype) {
  bool said = false;
  const auto set = [&](OrderedJson& block) {
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (!block.contains(key)) continue;
      block[key] = torch_dtype;
      said = true;
    }
  };
  set(config);
  for (const char* part : {"text_config", "vision_config"})
    if (config.contains(part) && config[part].is_object()) set(config[part]);
  if (!said) config["torch_dtype"] = torch_dtype;
}

}  // namespace

Provenance provenance_of(const Model& model, std::string settings,
                         const std::function<void(int64_t bytes)>& read) {
  const fs::path& from = model.gguf ? model.gguf->path() : model.checkpoint.folder();
  Provenance provenance{.source = fs::canonical(from).filename().string(),
                        .version = LAPIDARY_VERSION,
                        .settings = std::move(settings),
                        .sha256 = {}};
  std::vector<fs::path> files;
  if (model.gguf)
    for (const MappedFile& file : model.gguf->files()) files.push_back(file.path());
  else if (fs::exists(from / kIndex))
    files.push_back(from / kIndex);
  else
    for (const SafetensorsFile& file : model.checkpoint.files()) files.push_back(file.path());
  for (const fs::path& file : files)
    provenance.sha256.emplace_back(file.filename().string(), sha256_of_file(file, read));
  return provenance;
}

Metadata metadata_of(const Provenance& provenance, const std::string& format) {
  Metadata metadata = {{"format", format},
                       {"lapidary.source", provenance.source},
                       {"lapidary.version", provenance.version},
                       {"lapidary.settings", provenance.settings}};
  for (const auto& [file, hash] : provenance.sha256)
    metadata.emplace("lapidary.sha256." + file, hash);
  return metadata;
}

void write_config(OrderedJson config, const fs::path& to,
                  const std::optional<QuantizationSpec>& spec, const std::string& torch_dtype) {
  for (const char* key : {"quantization", "quantization_config"}) {
    if (spec)
      config[key] = quantization_json(*spec);
    else
      config.erase(key);
  }
  if (!torch_dtype.empty()) set_dtype(config, torch_dtype);
  write_file(to / "config.json", config.dump(2) + "\n");
}

void write_readme(const fs::path& from, const fs::path& to, const Provenance& provenance) {
  std::string text;
  if (fs::is_directory(from) && fs::exists(from / kReadme)) text = read_text(from / kReadme) + "\n";
  text += fmt::format("## Conversion\n\nMade from `{}` by lapidary {}: {}.\n\n", provenance.source,
                      provenance.version, provenance.settings);
  text += "| file of the source | SHA-256 |\n|---|---|\n";
  for (const auto& [file, hash] : provenance.sha256)
    text += fmt::format("| {} | {} |\n", file, hash);
  write_file(to / kReadme, text);
}

void copy_other_files(const fs::path& from, const fs::path& to) {
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || name == "config.json" || name == kReadme ||
        name.starts_with('.'))
      continue;
    if (is_weights(name)) {
      log(LogLevel::kDebug, fmt::format("{} is not copied", name));
      continue;
    }
    std::error_code error;
    fs::copy_file(entry.path(), to / name, error);
    if (error) fail_resource("{}: cannot copy: {}", (to / name).string(), error.message());
  }
}

void write_other_files(const GgufFile& from, const fs::path& to) {
  const GgufContents& contents = from.contents();
  const std::string where = from.path().string();
  write_file(to / "generation_config.json",
             generation_config_json(read_gguf_generation_config(contents, where)));
  if (const auto model = sentencepiece_of_gguf(contents, where))
    write_file(to / "tokenizer.model", *model);
  else
    log(LogLevel::kInfo,
        fmt::format("{}: no vocabulary in it, so the folder has no tokenizer", where));
  if (const std::string text = chat_template(contents, where); !text.empty())
    write_file(to / "chat_template.jinja", text);
}

}  // namespace lapidary
