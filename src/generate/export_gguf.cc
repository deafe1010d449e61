#include <algorithm>
#include <malloc.h>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include <fmt/ranges.h>

#include "lapidary/convert.h"
#include "lapidary/log.h"
#include "lapidary/tokenizer.h"

#include "base/fail.h"
#include "gemma/gguf_model.h"
#include "gemma/load.h"
#include "gemma/set_block.h"
#include "generate/conversion.h"
#include "generate/convert_check.h"
#include "generate/gguf_vocabulary.h"
#include "generate/recipe.h"
#include "generate/row_stream.h"
#include "io/gguf.h"
#include "io/staging.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kPlaceholder =
    "The vocabulary of the GGUF file is a placeholder: token ids work, text means nothing";

// What a matrix can be written as.
struct MatrixType {
  GgmlType type;
  RowEncoder encoder;
};
const MatrixType& matrix_type(GgmlType type) {
  static const MatrixType kTypes[] = {
      {GgmlType::kF32, dense_encoder(DType::kF32)},
      {GgmlType::kF16, dense_encoder(DType::kF16)},
      {GgmlType::kBF16, dense_encoder(DType::kBF16)},
      {GgmlType::kQ8_0, q8_0_encoder()},
      {GgmlType::kQ6_K, q6_k_encoder()},
      {GgmlType::kQ4_K, q4_k_encoder()},
      {GgmlType::kQ5_0, q5_0_encoder()},
      {GgmlType::kQ4_0, q4_0_encoder()},
  };
  return *std::ranges::find(kTypes, type, &MatrixType::type);
}

// What a model can be written as.
struct Format {
  const char* option;
  uint32_t file_type;  // the format's number for it
  GgmlType type;
  GgmlType sensitive_type;  // of matrices that errors hurt most
};
constexpr Format kFormats[] = {
    {"f32", 0, GgmlType::kF32, GgmlType::kF32},
    {"f16", 1, GgmlType::kF16, GgmlType::kF16},
    {"bf16", 32, GgmlType::kBF16, GgmlType::kBF16},
    {"q8_0", 7, GgmlType::kQ8_0, GgmlType::kQ8_0},
    {"q6_k", 18, GgmlType::kQ6_K, GgmlType::kQ6_K},
    {"q4_k_m", 15, GgmlType::kQ4_K, GgmlType::kQ6_K},
    {"q4_k", 14, GgmlType::kQ4_K, GgmlType::kQ4_K},
    {"q4_0", 2, GgmlType::kQ4_0, GgmlType::kQ4_0},
};

const Format& format_of(const std::string& option) {
  for (const Format& format : kFormats)
    if (option == format.option) return format;
  fail_usage("type: '{}' given, expected one of {}", option, fmt::join(gguf_types(), ", "));
}

// Blocks of 256 fit few of the small models' widths. What llama.cpp's quantiser takes there.
GgmlType type_for_width(GgmlType type, int64_t cols) {
  const auto fits = [&](GgmlType other) { return cols % info_of(other).block_values == 0; };
  if (fits(type) || (type != GgmlType::kQ4_K && type != GgmlType::kQ6_K)) return type;
  const GgmlType small = type == GgmlType::kQ4_K ? GgmlType::kQ5_0 : GgmlType::kQ8_0;
  return fits(small) ? small : GgmlType::kF16;
}

// A tensor of the model on its way into the file.
struct Part {
  std::string name;                 // canonical
  GgmlType asked = GgmlType::kF32;  // what the format has for it; `type` is for its width
  const MatrixType* type = nullptr;
  RowSource source;
  bool norm = false;
};

RowSource scaled(RowSource source, float factor) {
  if (factor == 1) return source;
  source.fill = [fill = source.fill, cols = source.cols, factor](int64_t row, float* values) {
    fill(row, values);
    for (int64_t i = 0; i < cols; ++i) values[i] *= factor;
  };
  return source;
}

RowSource row_of(const std::vector<float>& norm) {
  return {1, std::ssize(norm),
          [&norm](int64_t, float* values) { std::ranges::copy(norm, values); }};
}

// The output matrix, and of some layers the two that llama.cpp's mixtures give more bits.
bool is_sensitive(const std::string& name, int layer, int layers) {
  if (layer < 0) return true;
  return (name.ends_with(".v_proj.weight") || name.ends_with(".down_proj.weight")) &&
         deserves_more_bits(layer, layers);
}

std::vector<Part> list_parts(const Model& model, const Format& format, float query_factor) {
  // Of the two places that scale queries alone, the norm is stored without rounding.
  const char* scaled_name = model.config.qk_norm() ? ".q_norm.weight" : ".q_proj.weight";
  const int layers = model.config.num_hidden_layers;
  std::vector<Part> parts;
  const auto add_matrix = [&](const std::string& name, const WeightMatrix& matrix) {
    const bool sensitive = is_sensitive(name, layer_of(name), layers);
    const GgmlType asked = sensitive ? format.sensitive_type : format.type;
    const GgmlType type = type_for_width(asked, matrix.cols);
    parts.push_back({name, asked, &matrix_type(type), rows_of(matrix)});
  };
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto& field, int64_t, int64_t) {
                  if constexpr (std::is_same_v<decltype(field), const Linear&>)
                    add_matrix(name, field);
                  else
                    parts.push_back(
                        {name, GgmlType::kF32, &matrix_type(GgmlType::kF32), row_of(field), true});
                  if (name.ends_with(scaled_name))
                    parts.back().source = scaled(parts.back().source, query_factor);
                });
  if (!model.config.tie_word_embeddings) add_matrix("lm_head.weight", model.weights.lm_head);
  return parts;
}

std::vector<GgufTensorDeclaration> declarations(const Config& config,
                                                const std::vector<Part>& parts) {
  std::vector<GgufTensorDeclaration> list;
  for (const Part& part : parts) {
    std::vector<int64_t> shape = {part.source.cols};
    if (!part.norm) shape.insert(shape.begin(), part.source.rows);
    list.push_back({gguf_tensor_name(config, part.name), part.type->type, shape});
  }
  return list;
}

void check_widths(const std::vector<Part>& parts, const std::string& where) {
  for (const Part& part : parts) {
    const RowEncoder& encoder = part.type->encoder;
    if (part.source.cols % encoder.block_values != 0)
      throw Error(ErrorKind::kInput,
                  fmt::format("{}: tensor {}: blocks of {} do not divide its width of {}", where,
                              part.name, encoder.block_values, part.source.cols),
                  "choose a type without blocks");
  }
}

std::map<std::string, int64_t> substitutes(const std::vector<Part>& parts) {
  std::map<std::string, int64_t> counts;
  for (const Part& part : parts)
    if (part.type->type != part.asked) ++counts[std::string(info_of(part.type->type).name)];
  return counts;
}

ConversionCheck check_file(const Model& model, const Format& format, const std::vector<Part>& parts,
                           const fs::path& path, ThreadPool& pool, ConversionProgress& progress,
                           const Watch& watch) {
  Model result = load_model(path);
  result.gguf->forget_metadata();
  const std::vector<Part> after = list_parts(result, format, 1);
  std::vector<TensorPair> pairs;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const std::string name = gguf_tensor_name(model.config, part.name);
    if (result.gguf->contents().find_tensor(name)->type != part.type->type)
      fail("{}: tensor {} is of another type", path.string(), name);
    pairs.push_back({name, part.source, after[i].source, part.type->encoder.block_values,
                     part.type->encoder.error_share, !part.norm});
  }
  ConversionCheck check;
  check_weights(pairs, path.string(), pool, check, [&](int64_t weights) {
    model.release_pages();
    result.release_pages();
    progress.add(weights);
  });
  check_logits(model, result, check_tokens(model, model.checkpoint.folder()), path.string(),
               pool.threads(), check, watch);
  return check;
}

GgufMetadata metadata_of(const Model& model, const fs::path& folder, const Format& format,
                         bool with_vocabulary) {
  constexpr uint32_t kQuantizationVersion = 2;
  const Config& config = model.config;
  GgufMetadata keys = {{"general.architecture", gguf_architecture(config)},
                       {"general.type", std::string("model")},
                       {"general.name", fs::canonical(folder).filename().string()},
                       {"general.file_type", format.file_type}};
  if (matrix_type(format.type).encoder.block_values > 1)
    keys.emplace_back("general.quantization_version", kQuantizationVersion);
  const auto append = [&](GgufMetadata more) {
    std::move(more.begin(), more.end(), std::back_inserter(keys));
  };
  const std::string config_file = (folder / "config.json").string();
  append(gguf_config(config, config_file));
  if (const auto training = set_block_training(model)) append(to_gguf(*training));
  if (with_vocabulary) {
    append(gguf_vocabulary(folder, config.vocab_size));
  } else {
    keys.emplace_back("general.description", std::string(kPlaceholder));
    append(gguf_placeholder_vocabulary(config.vocab_size, config_file));
  }
  return keys;
}

void check_target(const fs::path& file, bool overwrite) {
  std::error_code ignored;  // what cannot be asked about cannot be written either, which says why
  if (fs::is_directory(file, ignored)) fail("{}: is a folder", file.string());
  if (!overwrite && fs::exists(file, ignored))
    throw Error(ErrorKind::kInput, fmt::format("{}: is there already", file.string()),
                "--force replaces it");
}

}  // namespace

std::vector<std::string> gguf_types() {
  std::vector<std::string> names;
  for (const Format& format : kFormats) names.emplace_back(format.option);
  return names;
}

Conversion export_gguf(const fs::path& folder, const fs::path& file, const GgufOptions& options,
                       const Watch& watch) {
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  const Format& format = format_of(options.type);
  check_model_path(folder);
  if (!fs::is_directory(folder))
    throw Error(ErrorKind::kInput,
                fmt::format("{}: a GGUF file is made of a folder", folder.string()),
                "a GGUF file becomes a folder with: lapidary convert FILE -o DIR");
  check_target(file, options.overwrite);
  const Model model = load_model(folder);
  const bool with_vocabulary = Tokenizer::present(folder);
  GgufMetadata metadata = metadata_of(model, folder, format, with_vocabulary);
  const double query_factor = gguf_query_factor(model.config);
  if (query_factor != 1)
    log(LogLevel::kInfo,
        fmt::format("query_pre_attn_scalar is not what llama.cpp takes for granted; {} is "
                    "multiplied by {:.6f} to make up for it",
                    model.config.qk_norm() ? "attn_q_norm" : "attn_q", query_factor));
  if (!with_vocabulary)
    log(LogLevel::kInfo, fmt::format("{} has no tokenizer. {}", folder.string(), kPlaceholder));

  const std::vector<Part> parts = list_parts(model, format, static_cast<float>(query_factor));
  check_widths(parts, folder.string());
  RowStream stream(options.threads);
  ConversionMemory memory(stream.pool().threads());
  int64_t weights = 0;
  for (const Part& part : parts) {
    memory.add_tensor(part.source.rows, part.source.cols, part.type->encoder);
    weights += part.source.rows * part.source.cols;
  }
  if (options.check) {
    memory.add_weights_check(model.config);
    memory.add_logits_check(model.config);
  }
  if (with_vocabulary) memory.add_tokenizer(folder, model.config.vocab_size);
  memory.check(folder);

  Staging staging(file, Staging::Kind::kFile);
  ConversionProgress progress(watch, weights * (options.check ? 2 : 1));
  GgufWriter writer(staging.path(), metadata, declarations(model.config, parts));
  GgufMetadata().swap(metadata);  // tens of megabytes of small pieces
  ::malloc_trim(0);
  for (const Part& part : parts) {
    int64_t done = 0;
    stream.write(
        part.source, part.type->encoder, fmt::format("{}: tensor {}", folder.string(), part.name),
        [&](std::span<const std::byte> bytes) { writer.write(bytes); },
        [&](int64_t rows) {
          model.release_pages();
          progress.add((rows - std::exchange(done, rows)) * part.source.cols);
        });
  }
  writer.finish();

  Conversion made{.files = {{file.filename().string(), writer.file_bytes()}},
                  .bytes = writer.file_bytes(),
                  .tensors = std::ssize(parts),
                  .changed = std::ssize(parts),
                  .bits_per_weight =
                      8 * static_cast<double>(writer.total_bytes()) / static_cast<double>(weights),
                  .memory_forecast = memory.bytes(),
                  .placeholder_vocabulary = !with_vocabulary,
                  .substitutes = substitutes(parts)};
  if (options.check)
    made.check = checked(staging, [&] {
      return check_file(model, format, parts, staging.path(), stream.pool(), progress, watch);
    });
  watch.throw_if_stopped();
  staging.commit();
  return made;
}

}  // namespace lapidary
