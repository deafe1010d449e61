#include "gemma/adapter_file.h"

#include <cmath>
#include <fstream>
#include <optional>

#include "base/fail.h"
#include "gemma/adapter_formats.h"
#include "gemma/load.h"
#include "io/staging.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kPeftTensors = "adapter_model.safetensors";
constexpr const char* kMlxTensors = "adapters.safetensors";

// The factors of the folder, unless `given` names a file of them.
fs::path tensors_in(const fs::path& folder, const fs::path& given, const char* name) {
  if (!given.empty()) return given;
  const fs::path path = folder / name;
  if (!fs::exists(path) && fs::exists(folder / "adapter_model.bin"))
    throw Error(
        ErrorKind::kInput,
        fmt::format("{}: is a pickle, expected {}", (folder / "adapter_model.bin").string(), name),
        "save the adapter with safe_serialization=True");
  return path;
}

AdapterFile load_folder(const fs::path& folder, const fs::path& given) {
  const fs::path config = folder / kConfig;
  if (!fs::exists(config))
    fail("{}: no {} there; an adapter is a folder with one and factors, or a GGUF file",
         folder.string(), kConfig);
  const OrderedJson json = read_ordered_json_file(config);
  if (!json.is_object()) fail("{}: expected an object", config.string());
  if (json.contains("peft_type"))
    return read_peft_adapter(json, config, tensors_in(folder, given, kPeftTensors));
  if (json.contains("fine_tune_type") || json.contains("lora_parameters"))
    return read_mlx_adapter(json, config, tensors_in(folder, given, kMlxTensors));
  fail("{}: neither 'peft_type', as PEFT writes, nor 'lora_parameters', as MLX-LM does",
       config.string());
}

bool is_gguf(const fs::path& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::string_view(magic, sizeof magic) == "GGUF";
}

void attach_named(Adapter& adapter, const fs::path& path, double strength, const Config& config,
                  Weights& weights) {
  try {
    attach(adapter, strength, config, weights);
  } catch (const Error& e) {
    throw Error(e.kind(), fmt::format("{}: {}", path.string(), e.what()), e.hint());
  }
}

}  // namespace

const char* name_of(AdapterFormat format) {
  return format == AdapterFormat::kPeft ? "peft" : format == AdapterFormat::kMlx ? "mlx" : "gguf";
}

AdapterFormat adapter_format_named(std::string_view name) {
  for (const auto format : {AdapterFormat::kPeft, AdapterFormat::kMlx, AdapterFormat::kGguf})
    if (name == name_of(format)) return format;
  fail_usage("adapter format: '{}' given, expected peft, mlx or gguf", name);
}

AdapterFile load_adapter(const fs::path& path) {
  if (!fs::exists(path)) fail("{}: no such adapter", path.string());
  if (fs::is_directory(path)) return load_folder(path, {});
  if (is_gguf(path)) return read_gguf_adapter(path);
  return load_folder(path.parent_path(), path);
}

Adapter load_and_attach(const fs::path& path, double strength, const Config& config,
                        Weights& weights) {
  if (!std::isfinite(strength))
    fail_usage("{}: strength {} is not a number", path.string(), strength);
  Adapter adapter = load_adapter(path).adapter;
  attach_named(adapter, path, strength, config, weights);
  return adapter;
}

AdapterSummary summary_of(const AdapterFile& file) {
  AdapterSummary summary{.format = file.format,
                         .base_model = file.base_model,
                         .dtype = std::string(name_of(file.dtype)),
                         .multimodal = file.multimodal,
                         .dora = has_magnitudes(file.adapter)};
  for (const AdapterMatrix& m : file.adapter.matrices) {
    summary.matrices.push_back({.target = m.target,
                                .rows = std::ssize(m.b) / m.rank,
                                .cols = std::ssize(m.a) / m.rank,
                                .rank = m.rank,
                                .scale = m.scale});
    summary.parameters += m.values();
  }
  return summary;
}

AdapterSummary describe_adapter(const fs::path& path) {
  return summary_of(load_adapter(path));
}

void check_adapter_target(const fs::path& out, AdapterFormat format, bool overwrite) {
  std::error_code ignored;  // what cannot be asked about cannot be written either, which says why
  if (!fs::exists(out, ignored)) return;
  if (!overwrite)
    throw Error(ErrorKind::kInput, fmt::format("{}: is there already", out.string()),
                "--force replaces it");
  if (format == AdapterFormat::kGguf) {
    if (fs::is_directory(out, ignored)) fail("{}: is a folder, expected a file", out.string());
    return;
  }
  if (!fs::is_directory(out, ignored)) fail("{}: is not a folder", out.string());
  if (!fs::is_empty(out, ignored) && !fs::exists(out / kConfig, ignored))
    throw Error(ErrorKind::kInput, fmt::format("{}: is no adapter, and not replaced", out.string()),
                "choose another name");
}

void save_adapter(const AdapterFile& file, AdapterFormat format, const fs::path& out,
                  bool overwrite, const Config* config) {
  check_adapter_target(out, format, overwrite);
  if (format == AdapterFormat::kGguf) {
    LAPIDARY_CHECK(config != nullptr, "a GGUF adapter without a model's configuration");
    if (has_magnitudes(file.adapter))
      throw Error(
          ErrorKind::kInput,
          fmt::format("{}: the adapter is of DoRA, which GGUF has no place for", out.string()),
          "lapidary fuse makes it part of a model, which lapidary convert writes as GGUF");
    write_gguf_adapter(file, *config, out);
    return;
  }
  Staging staging(out);
  if (format == AdapterFormat::kPeft)
    write_peft_adapter(file, staging.path());
  else
    write_mlx_adapter(file, staging.path());
  staging.commit();
}

AdapterSummary convert_adapter(const fs::path& in, const fs::path& out,
                               const AdapterConversion& options) {
  if (options.format == AdapterFormat::kGguf && options.model.empty())
    throw Error(ErrorKind::kUsage, "a GGUF adapter is for one architecture, which a model tells",
                "-m MODEL");
  check_adapter_target(out, options.format, options.overwrite);
  AdapterFile file = load_adapter(in);
  std::error_code ignored;
  if (fs::equivalent(in, out, ignored)) fail("{}: is the adapter to convert", out.string());
  std::optional<Model> model;
  if (!options.model.empty()) {
    model = load_model(options.model);
    attach_named(file.adapter, in, 1, model->config, model->weights);
    file.multimodal = model->vision_tensors > 0;
  }
  save_adapter(file, options.format, out, options.overwrite, model ? &model->config : nullptr);
  file.format = options.format;
  return summary_of(file);
}

}  // namespace lapidary
