#include <algorithm>
#include <atomic>
#include <cmath>
#include <type_traits>

#include "lapidary/convert.h"
#include "lapidary/log.h"
#include "lapidary/tokenizer.h"

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/float16.h"
#include "base/thread_pool.h"
#include "gemma/gguf_model.h"
#include "gemma/load.h"
#include "generate/gguf_vocabulary.h"
#include "io/gguf.h"
#include "kernels/kernels.h"
#include "quant/q4_0.h"
#include "quant/q8_0.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kPlaceholder =
    "The vocabulary of the GGUF file is a placeholder: token ids work, text means nothing";
constexpr int64_t kPieceValues = int64_t{4} << 20;  // made between two writes

template <DType type>
void encode_floats(std::span<const float> values, std::byte* out) {
  store_floats(values, type, out);
}

// What a matrix can be written as.
struct Format {
  const char* option;
  GgmlType type;
  uint32_t file_type;  // the format's number for a file that is mostly of this type
  float limit;         // magnitudes from here on become infinite
  void (*encode)(std::span<const float>, std::byte*);
};
constexpr float kF16Limit = 65520;  // rounds to the power of two that f16 does not have
constexpr Format kFormats[] = {
    {"f32", GgmlType::kF32, 0, INFINITY, encode_floats<DType::kF32>},
    {"f16", GgmlType::kF16, 1, kF16Limit, encode_floats<DType::kF16>},
    {"bf16", GgmlType::kBF16, 32, 0x1.ffp127f, encode_floats<DType::kBF16>},
    {"q8_0", GgmlType::kQ8_0, 7, 127 * kF16Limit, q8_0_encode},
    {"q4_0", GgmlType::kQ4_0, 2, 8 * kF16Limit, q4_0_encode},
};

const Format& format_of(const std::string& option) {
  for (const Format& format : kFormats)
    if (option == format.option) return format;
  fail_usage("type: '{}' given, expected f32, f16, bf16, q8_0 or q4_0", option);
}

// A tensor of the model on its way into the file: a matrix or, with cols = 0 and none, a norm.
struct Part {
  std::string name;  // canonical
  const WeightMatrix* matrix = nullptr;
  std::span<const float> norm = {};
  float factor = 1;
};

std::vector<Part> list_parts(const Model& model, float query_factor) {
  // Of the two places that scale queries alone, the norm is stored without rounding.
  const char* scaled = model.config.qk_norm() ? ".q_norm.weight" : ".q_proj.weight";
  std::vector<Part> parts;
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto& field, int64_t, int64_t) {
                  Part part{.name = name};
                  if constexpr (std::is_same_v<decltype(field), const WeightMatrix&>)
                    part.matrix = &field;
                  else
                    part.norm = field;
                  if (name.ends_with(scaled)) part.factor = query_factor;
                  parts.push_back(part);
                });
  if (!model.config.tie_word_embeddings)
    parts.push_back({.name = "lm_head.weight", .matrix = &model.weights.lm_head});
  return parts;
}

// Makes the bytes of a model's tensors and hands them to the file's writer.
class Maker {
 public:
  Maker(const Format& format, const Kernels& kernels, int threads, std::string where)
      : format_(format),
        info_(info_of(format.type)),
        kernels_(kernels),
        pool_(threads > 0 ? threads : cpu_budget().threads()),
        where_(std::move(where)) {}

  std::vector<GgufTensorDeclaration> declarations(const Config& config,
                                                  const std::vector<Part>& parts) const {
    std::vector<GgufTensorDeclaration> list;
    for (const Part& part : parts) {
      const std::string name = gguf_tensor_name(config, part.name);
      if (part.matrix == nullptr) {
        list.push_back({name, GgmlType::kF32, {std::ssize(part.norm)}});
        continue;
      }
      const auto& m = *part.matrix;
      if (m.cols % info_.block_values != 0)
        fail("{}: tensor {}: blocks of {} do not divide its width of {}", where_, part.name,
             info_.block_values, m.cols);
      list.push_back({name, format_.type, {m.rows, m.cols}});
    }
    return list;
  }

  void write(const Part& part, GgufWriter& writer, const Watch& watch) {
    if (part.matrix != nullptr) return write_matrix(part, writer, watch);
    std::vector<float> norm(part.norm.begin(), part.norm.end());
    for (float& x : norm) x *= part.factor;
    writer.write(std::as_bytes(std::span(norm)));
  }

 private:
  void write_matrix(const Part& part, GgufWriter& writer, const Watch& watch) {
    const WeightMatrix& m = *part.matrix;
    const int64_t step = std::max<int64_t>(1, kPieceValues / m.cols);
    for (int64_t row = 0; row < m.rows; row += step) {
      watch.throw_if_stopped();
      write_rows(part, row, std::min(step, m.rows - row), writer);
      watch.report(writer.written_bytes(), writer.total_bytes());
    }
  }

  void write_rows(const Part& part, int64_t first, int64_t rows, GgufWriter& writer) {
    const WeightMatrix& m = *part.matrix;
    const int64_t row_bytes = m.cols / info_.block_values * info_.block_bytes;
    bytes_.resize(static_cast<size_t>(rows * row_bytes));
    std::atomic<int64_t> bad_row{-1};
    pool_.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
      std::vector<float> values(static_cast<size_t>(m.cols));
      for (int64_t row = begin; row < end; ++row) {
        kernels_.dequantize_row(m, first + row, values.data());
        for (float& x : values) x *= part.factor;
        if (fits(values))
          format_.encode(values, bytes_.data() + row * row_bytes);
        else
          bad_row = first + row;
      }
    });
    if (bad_row >= 0)
      fail("{}: tensor {}: row {} has a value that {} cannot hold", where_, part.name,
           bad_row.load(), info_.name);
    writer.write(bytes_);
  }

  bool fits(std::span<const float> values) const {
    bool all = true;  // without a way out of the loop, which then is a few vector instructions
    for (const float x : values) all &= std::abs(x) < format_.limit;
    return all;
  }

  const Format& format_;
  const GgmlTypeInfo& info_;
  const Kernels& kernels_;
  ThreadPool pool_;
  std::string where_;
  std::vector<std::byte> bytes_;  // of a piece
};

GgufMetadata metadata_of(const Model& model, const fs::path& folder, const Format& format,
                         bool with_vocabulary) {
  constexpr uint32_t kQuantizationVersion = 2;
  const Config& config = model.config;
  GgufMetadata keys = {{"general.architecture", gguf_architecture(config)},
                       {"general.type", std::string("model")},
                       {"general.name", fs::canonical(folder).filename().string()},
                       {"general.file_type", format.file_type}};
  if (info_of(format.type).block_values > 1)
    keys.emplace_back("general.quantization_version", kQuantizationVersion);
  const auto append = [&](GgufMetadata more) {
    std::move(more.begin(), more.end(), std::back_inserter(keys));
  };
  const std::string config_file = (folder / "config.json").string();
  append(gguf_config(config, config_file));
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

GgufSummary export_gguf(const fs::path& folder, const fs::path& file, const GgufOptions& options,
                        const Watch& watch) {
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  const Format& format = format_of(options.type);
  if (!fs::is_directory(folder)) fail("{}: no such folder", folder.string());
  check_target(file, options.overwrite);
  const Model model = load_model(folder);
  const bool with_vocabulary = Tokenizer::present(folder);
  const GgufMetadata metadata = metadata_of(model, folder, format, with_vocabulary);
  const double query_factor = gguf_query_factor(model.config);
  if (query_factor != 1)
    log(LogLevel::kInfo,
        fmt::format("query_pre_attn_scalar is not what llama.cpp takes for granted; {} is "
                    "multiplied by {:.6f} to make up for it",
                    model.config.qk_norm() ? "attn_q_norm" : "attn_q", query_factor));

  Maker maker(format, best_kernels(), options.threads, folder.string());
  const std::vector<Part> parts = list_parts(model, static_cast<float>(query_factor));
  GgufWriter writer(file, metadata, maker.declarations(model.config, parts));
  for (const Part& part : parts) maker.write(part, writer, watch);
  watch.throw_if_stopped();
  writer.finish();
  if (!with_vocabulary)
    log(LogLevel::kInfo, fmt::format("{} has no tokenizer. {}", folder.string(), kPlaceholder));
  return {.tensors = std::ssize(parts),
          .bytes = writer.file_bytes(),
          .placeholder_vocabulary = !with_vocabulary};
}

}  // namespace lapidary
