#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/fail.h"
#include "base/float16.h"
#include "gemma/fill_weights.h"
#include "gemma/gguf_model.h"
#include "gemma/load.h"
#include "io/printable.h"
#include "tensor/tensor.h"

namespace lapidary {

namespace {

std::optional<DType> float_type(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return DType::kF32;
    case GgmlType::kF16:
      return DType::kF16;
    case GgmlType::kBF16:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

std::optional<WeightFormat> blocks_of(GgmlType type) {
  const std::string_view name = info_of(type).name;
  for (const BlockFormat& format : kBlockFormats)
    if (format.name == name) return format.format;
  return std::nullopt;
}

// Takes tensors out of a file by canonical name and remembers which were taken.
class GgufSource {
 public:
  GgufSource(const GgufContents& contents, const Config& config, std::string where)
      : contents_(contents), config_(config), where_(std::move(where)) {}

  // Norms have the "1 +" in the file.
  void fill(const std::string& name, std::vector<float>& norm, int64_t size) {
    const GgufTensor& tensor = take(name, {size});
    const auto type = float_type(tensor.type);
    if (!type) fail_type(tensor, "F32, F16 or BF16");
    norm.resize(static_cast<size_t>(size));
    for (size_t i = 0; i < norm.size(); ++i) {
      norm[i] = float_at(tensor.bytes.data(), *type, static_cast<int64_t>(i));
      if (!std::isfinite(norm[i]))
        fail("{}: tensor {}: value {} is not finite", where_, tensor.name, i);
    }
  }

  void fill(const std::string& name, WeightMatrix& matrix, int64_t rows, int64_t cols) {
    const GgufTensor& tensor = take(name, {rows, cols});
    if (const auto format = blocks_of(tensor.type)) {
      matrix = block_matrix(*format, rows, cols, tensor.bytes.data());
    } else {
      const auto type = float_type(tensor.type);
      std::string known = "F32, F16, BF16";
      for (const BlockFormat& block : kBlockFormats) known += fmt::format(", {}", block.name);
      if (!type) fail_type(tensor, known);
      matrix = {.rows = rows, .cols = cols, .dtype = *type, .data = tensor.bytes.data()};
    }
  }

  void fail_if_surplus() const {
    for (const GgufTensor& tensor : contents_.tensors)
      if (!taken_.contains(tensor.name))
        fail("{}: tensor {} is none of {}", where_, printable(tensor.name),
             gguf_architecture(config_));
  }

 private:
  const GgufTensor& take(const std::string& name, const std::vector<int64_t>& shape) {
    const std::string stored = gguf_tensor_name(config_, name);
    const GgufTensor* tensor = contents_.find_tensor(stored);
    if (tensor == nullptr) fail("{}: tensor {} is missing", where_, stored);
    if (tensor->shape != shape)
      fail("{}: tensor {}: shape {}, expected {}", where_, stored, shape_string(tensor->shape),
           shape_string(shape));
    taken_.insert(stored);
    return *tensor;
  }

  [[noreturn]] void fail_type(const GgufTensor& tensor, const std::string& expected) const {
    fail("{}: tensor {}: type {} is not supported here, expected {}", where_, tensor.name,
         info_of(tensor.type).name, expected);
  }

  const GgufContents& contents_;
  const Config& config_;
  std::string where_;
  std::set<std::string, std::less<>> taken_;
};

}  // namespace

Model load_gguf_model(const std::filesystem::path& file) {
  GgufFile gguf = GgufFile::open(file);
  Model model{.config = read_gguf_config(gguf.contents(), file.string())};
  const Config& config = model.config;
  check_head_dim(config, file.string(),
                 fmt::format("key '{}.attention.key_length'", gguf_architecture(config)));
  GgufSource source(gguf.contents(), config, file.string());
  fill_weights(model, source);
  Weights& weights = model.weights;
  if (!config.tie_word_embeddings) {
    source.fill("lm_head.weight", weights.lm_head, config.vocab_size, config.hidden_size);
    model.parameters += weights.lm_head.rows * weights.lm_head.cols;
  }
  source.fail_if_surplus();
  if (!weights.embed_tokens.blocks()) model.dtype = weights.embed_tokens.dtype;
  model.gguf = std::move(gguf);
  return model;
}

}  // namespace lapidary
