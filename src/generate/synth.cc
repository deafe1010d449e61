#include "lapidary/synth.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/json.h"
#include "base/rng.h"
#include "gemma/generation_config.h"
#include "gemma/model.h"
#include "generate/folder_files.h"
#include "generate/row_stream.h"
#include "generate/storage.h"
#include "io/output_file.h"
#include "io/quantization.h"
#include "io/safetensors.h"
#include "io/staging.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr float kWeightDeviation = 0.02f;  // HF's initializer_range
constexpr float kNormDeviation = 0.1f;

// One tensor of the model, or one vector (cols = 0).
struct Part {
  std::string name;
  int64_t rows;
  int64_t cols;
};

std::vector<Part> list_parts(const Config& config) {
  std::vector<Part> parts;
  Weights weights;
  weights.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  visit_tensors(config, weights, [&](const std::string& name, auto&, int64_t rows, int64_t cols) {
    parts.push_back({name, rows, cols});
  });
  return parts;
}

void check_options(const SynthOptions& options, const std::vector<Part>& parts) {
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  if (options.bits == 0) return;
  check_affine_options(options.bits, options.group_size);
  for (const Part& part : parts)
    if (part.cols % options.group_size != 0)
      fail_usage("group-size: {} does not divide the width {} of {}", options.group_size, part.cols,
                 part.name);
}

// Makes the folders above a place, and removes those that are empty in the end.
class ParentFolders {
 public:
  explicit ParentFolders(const fs::path& place) {
    const fs::path parent = fs::absolute(place / "").lexically_normal().parent_path().parent_path();
    for (fs::path path = parent; !path.empty() && !fs::exists(path); path = path.parent_path())
      made_.push_back(path);
    std::error_code error;
    fs::create_directories(parent, error);
    if (error) fail_resource("{}: cannot create: {}", parent.string(), error.message());
  }
  ~ParentFolders() {
    std::error_code ignored;
    for (const fs::path& folder : made_) fs::remove(folder, ignored);
  }
  ParentFolders(const ParentFolders&) = delete;
  ParentFolders& operator=(const ParentFolders&) = delete;

 private:
  std::vector<fs::path> made_;  // the innermost first
};

std::vector<TensorDeclaration> declarations(const std::vector<Part>& parts,
                                            const Storage& matrices) {
  std::vector<TensorDeclaration> list;
  for (const Part& part : parts) {
    if (part.cols == 0)
      list.push_back({part.name, matrices.dtype, {part.rows}});
    else
      for (TensorDeclaration& d : declare_matrix(part.name, part.rows, part.cols, matrices))
        list.push_back(std::move(d));
  }
  return list;
}

void write_parts(const std::vector<Part>& parts, const SynthOptions& options,
                 const Storage& matrices, SafetensorsWriter& writer, const Watch& watch) {
  const RowEncoder dense = dense_encoder(matrices.dtype), matrix = encoder_of(matrices);
  RowStream stream(options.threads);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const bool norm = part.cols == 0;
    const int64_t rows = norm ? 1 : part.rows, cols = norm ? part.rows : part.cols;
    const float deviation = norm ? kNormDeviation : kWeightDeviation;
    const auto fill = [&, rng = CounterRng(options.seed, i)](int64_t row, float* values) {
      for (int64_t j = 0; j < cols; ++j)
        values[j] = deviation * rng.normal(static_cast<uint64_t>(row * cols + j));
    };
    stream.write(
        {rows, cols, fill}, norm ? dense : matrix, part.name,
        [&](std::span<const std::byte> bytes) { writer.write(bytes); },
        [&](int64_t) {
          watch.throw_if_stopped();
          watch.report(writer.written_bytes(), writer.total_bytes());
        });
  }
}

// What the released models say, as far as the vocabulary has the ids.
GenerationConfig generation_config(const Config& config) {
  const Token end_of_turn = config.family == Family::kGemma3 ? 106 : 107;
  GenerationConfig result{.eos_token_id = {1}, .temperature = 1, .top_k = 64, .top_p = 0.95};
  if (end_of_turn < config.vocab_size) result.eos_token_id.push_back(end_of_turn);
  return result;
}

void check_empty(const fs::path& folder) {
  if (!fs::exists(folder)) return;
  if (!fs::is_directory(folder)) fail("{}: is not a folder", folder.string());
  if (fs::exists(folder / "config.json")) fail("{}: holds a model already", folder.string());
  if (!fs::is_empty(folder)) fail("{}: has something in it", folder.string());
}

}  // namespace

void synthesize(const Config& config, const SynthOptions& options, const fs::path& folder,
                const Watch& watch) {
  const DType type = dtype_option(options.dtype);
  const Storage matrices{options.bits, options.group_size, type};
  const std::vector<Part> parts = list_parts(config);
  check_options(options, parts);
  check_empty(folder);

  const ParentFolders parents(folder);
  Staging staging(folder);
  const fs::path& out = staging.path();
  SafetensorsWriter writer(out / "model.safetensors", declarations(parts, matrices),
                           {{"format", options.bits != 0 ? "mlx" : "pt"}});
  write_parts(parts, options, matrices, writer, watch);
  writer.finish();
  write_file(out / "generation_config.json", generation_config_json(generation_config(config)));
  std::optional<QuantizationSpec> quantization;
  if (options.bits != 0) quantization = {{options.bits, options.group_size}, {}};
  write_config(OrderedJson::parse(config_json(config, torch_name(type))), out, quantization, "");
  staging.commit();
}

}  // namespace lapidary
