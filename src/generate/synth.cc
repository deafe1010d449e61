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

namespace lapidary {

namespace {

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

// Removes what was made, in case of failure: the files listed, and the folders that did not exist.
class Cleanup {
 public:
  explicit Cleanup(const std::filesystem::path& folder) {
    for (auto path = std::filesystem::absolute(folder).lexically_normal();
         !path.empty() && !std::filesystem::exists(path); path = path.parent_path())
      folders_.push_back(path);
  }
  ~Cleanup() {
    std::error_code ignored;
    for (const auto& file : files_) std::filesystem::remove(file, ignored);
    for (const auto& folder : folders_) std::filesystem::remove(folder, ignored);  // if empty
  }
  Cleanup(const Cleanup&) = delete;
  Cleanup& operator=(const Cleanup&) = delete;

  void add(const std::filesystem::path& file) { files_.push_back(file); }
  void disarm() {
    files_.clear();
    folders_.clear();
  }

 private:
  std::vector<std::filesystem::path> files_, folders_;
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

void check_empty(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder)) return;
  if (!std::filesystem::is_directory(folder)) fail("{}: is not a folder", folder.string());
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename() == "config.json" || entry.path().extension() == ".safetensors")
      fail("{}: holds a model already ({})", folder.string(), entry.path().filename().string());
}

}  // namespace

void synthesize(const Config& config, const SynthOptions& options,
                const std::filesystem::path& folder, const Watch& watch) {
  const DType type = dtype_option(options.dtype);
  const Storage matrices{options.bits, options.group_size, type};
  const std::vector<Part> parts = list_parts(config);
  check_options(options, parts);
  check_empty(folder);

  Cleanup cleanup(folder);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_resource("{}: cannot create: {}", folder.string(), error.message());
  SafetensorsWriter writer(folder / "model.safetensors", declarations(parts, matrices),
                           {{"format", options.bits != 0 ? "mlx" : "pt"}});
  write_parts(parts, options, matrices, writer, watch);
  cleanup.add(folder / "model.safetensors");
  cleanup.add(folder / "generation_config.json");
  cleanup.add(folder / "config.json");
  writer.finish();
  write_file(folder / "generation_config.json", generation_config_json(generation_config(config)));
  std::optional<QuantizationSpec> quantization;
  if (options.bits != 0) quantization = {{options.bits, options.group_size}, {}};
  write_config(OrderedJson::parse(config_json(config, torch_name(type))), folder, quantization, "");
  cleanup.disarm();
}

}  // namespace lapidary
