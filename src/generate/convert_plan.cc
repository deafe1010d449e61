#include "generate/convert_plan.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <type_traits>

#include "lapidary/log.h"

#include "base/fail.h"
#include "generate/recipe.h"
#include "io/names.h"

namespace lapidary {

namespace {

// A norm, or a part of the image encoder.
PlannedTensor plan_view(const NamedTensor& tensor) {
  const TensorView& view = tensor.view;
  PlannedTensor plan{.name = tensor.name, .shape = view.shape, .matrix = {}, .view = &view};
  plan.before = {0, 0, view.dtype};
  if (!is_float(view.dtype) || view.elements() == 0) return plan;
  plan.matrix.rows = view.shape.size() > 1 ? view.shape[0] : 1;
  plan.matrix.cols = view.elements() / plan.matrix.rows;
  plan.matrix.dtype = view.dtype;
  plan.matrix.data = view.bytes.data();
  return plan;
}

struct Listing {
  std::vector<PlannedTensor> tensors;
  std::vector<std::vector<float>> norms;  // that `tensors` point into
  std::vector<std::string> modules;       // canonical, of the first modules.size() matrices
  std::vector<size_t> matrices;           // indices of them in `tensors`
};

Listing list_gguf_tensors(const Model& model) {
  Listing list;
  const auto add = [&](const std::string& name, const WeightMatrix& matrix,
                       std::vector<int64_t> shape) {
    list.tensors.push_back({.name = name, .shape = std::move(shape), .matrix = matrix});
  };
  const auto add_matrix = [&](const std::string& name, const WeightMatrix& matrix) {
    list.matrices.push_back(list.tensors.size());
    list.modules.push_back(module_path(name));
    add(name, matrix, {matrix.rows, matrix.cols});
  };
  const auto add_norm = [&](const std::string& name, std::vector<float> norm) {
    for (float& x : norm) x -= 1;
    list.norms.push_back(std::move(norm));
    const std::vector<float>& values = list.norms.back();
    add(name, dense_matrix(values.data(), 1, std::ssize(values)), {std::ssize(values)});
  };
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto& field, int64_t, int64_t) {
                  if constexpr (std::is_same_v<decltype(field), const Linear&>)
                    add_matrix(name, field);
                  else
                    add_norm(name, field);
                });
  if (!model.config.tie_word_embeddings) add_matrix("lm_head.weight", model.weights.lm_head);
  return list;
}

Listing list_folder_tensors(const Model& model, const std::string& where) {
  const NameMap names = map_names(model.checkpoint.tensors(), where);
  Listing list;
  const auto add_matrix = [&](const std::string& name, const WeightMatrix& matrix) {
    PlannedTensor plan{.name = names.text.find(name)->second->name,
                       .shape = {matrix.rows, matrix.cols},
                       .matrix = matrix};
    plan.before = storage_of(matrix);
    list.matrices.push_back(list.tensors.size());
    list.modules.push_back(module_path(name));
    list.tensors.push_back(std::move(plan));
  };
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto& field, int64_t, int64_t) {
                  if constexpr (std::is_same_v<decltype(field), const Linear&>)
                    add_matrix(name, field);
                  else
                    list.tensors.push_back(plan_view(*names.text.find(name)->second));
                });
  if (!model.config.tie_word_embeddings) add_matrix("lm_head.weight", model.weights.lm_head);
  for (const NamedTensor* tensor : names.vision) list.tensors.push_back(plan_view(*tensor));
  return list;
}

// Chooses how each matrix is stored and notes it in the block for config.json.
void quantize(const FolderOptions& options, const Model& model, Listing& list,
              ConversionPlan& plan) {
  const AffineQuantization given{options.bits != 0 ? options.bits : 4, options.group_size};
  const Recipe recipe =
      options.recipe.empty() ? Recipe(given) : Recipe::load(options.recipe, given);
  const auto chosen = recipe.apply(list.modules, model.config.num_hidden_layers);
  plan.quantization = QuantizationSpec{recipe.defaults(), {}};
  for (size_t i = 0; i < list.matrices.size(); ++i) {
    PlannedTensor& tensor = list.tensors[list.matrices[i]];
    const auto& storage = chosen.at(list.modules[i]);
    if (storage) {
      if (tensor.matrix.cols % storage->group_size != 0)
        fail_usage("group-size: {} does not divide the width {} of {}", storage->group_size,
                   tensor.matrix.cols, tensor.name);
      tensor.after.bits = storage->bits;
      tensor.after.group = storage->group_size;
    }
    if (storage != recipe.defaults())
      plan.quantization->overrides.emplace(module_path(tensor.name), storage);
  }
}

}  // namespace

std::string dtype_from_gguf(const Model& model) {
  if (model.weights.embed_tokens.quantized()) return "bf16";
  return model.dtype == DType::kF32 ? "f32" : model.dtype == DType::kF16 ? "f16" : "bf16";
}

void check_folder_options(const FolderOptions& options, bool from_gguf) {
  if (options.threads < 0) fail_usage("threads: {} is negative", options.threads);
  if (options.shard_bytes <= 0) fail_usage("shard_bytes: {} is not positive", options.shard_bytes);
  const bool quantize = options.bits != 0 || !options.recipe.empty();
  if (quantize && options.dequantize)
    fail_usage("--dequantize writes dense weights, and does not go with quantising");
  if (!quantize && !options.dequantize && options.dtype.empty() && !from_gguf)
    fail_usage(
        "nothing asked for: --bits N quantises, --dequantize writes dense weights, --dtype TYPE "
        "changes their type");
  if (quantize) check_affine_options(options.bits != 0 ? options.bits : 4, options.group_size);
  if (!options.dtype.empty()) (void)dtype_option(options.dtype);
}

int64_t ConversionPlan::weights() const {
  return std::accumulate(
      tensors.begin(), tensors.end(), int64_t{0},
      [](int64_t sum, const PlannedTensor& tensor) { return sum + tensor.weights(); });
}

Storage storage_of(const WeightMatrix& m) {
  return m.affine() ? Storage{m.bits, m.group, m.dtype} : Storage{0, 0, m.dtype};
}

ConversionPlan plan_conversion(const Model& model, const FolderOptions& options,
                               const std::string& where) {
  std::optional<DType> dtype;
  if (!options.dtype.empty()) dtype = dtype_option(options.dtype);
  Listing list = model.gguf ? list_gguf_tensors(model) : list_folder_tensors(model, where);
  const bool was_quantized =
      std::ranges::any_of(list_matrices(model), [](const auto* m) { return m->quantized(); });
  const bool quantizes = options.bits != 0 || !options.recipe.empty();
  if (options.dequantize && !was_quantized)
    fail("{}: nothing to dequantise, the weights are dense", where);
  if (was_quantized && !quantizes && !options.dequantize && !model.gguf)
    throw Error(
        ErrorKind::kInput,
        fmt::format("{}: the weights are quantised, and have a type only when dense", where),
        "--dequantize writes them dense");

  ConversionPlan plan;
  for (PlannedTensor& tensor : list.tensors)
    tensor.after = {
        0, 0,
        is_float(tensor.before.dtype) ? dtype.value_or(tensor.before.dtype) : tensor.before.dtype};
  if (quantizes) quantize(options, model, list, plan);
  plan.tensors = std::move(list.tensors);
  plan.norms = std::move(list.norms);
  plan.changed = std::count_if(plan.tensors.begin(), plan.tensors.end(), [&](const auto& tensor) {
    return model.gguf || tensor.before != tensor.after;
  });
  if (plan.changed == 0)
    fail("{}: nothing would change, the weights are stored like that already", where);
  const bool any_quantized = std::any_of(plan.tensors.begin(), plan.tensors.end(),
                                         [](const auto& tensor) { return tensor.after.affine(); });
  if (quantizes && !any_quantized)
    fail("{}: asked to quantise, but {} leaves every module dense", where, options.recipe);
  if (quantizes && was_quantized)
    log(LogLevel::kWarning,
        fmt::format("{} is quantised already, and the errors add up: better start from the dense "
                    "weights it was made of",
                    where));
  return plan;
}

std::vector<std::span<const std::byte>> PlannedTensor::stored_bytes() const {
  if (view != nullptr) return {view->bytes};
  const auto bytes = [](const std::byte* data, int64_t size) {
    return std::span(data, static_cast<size_t>(size));
  };
  std::vector<std::span<const std::byte>> parts = {
      bytes(matrix.data, matrix.rows * matrix.row_bytes())};
  if (!matrix.affine()) return parts;
  const int64_t groups = matrix.rows * matrix.row_groups() * size_of(matrix.dtype);
  parts.push_back(bytes(matrix.scales, groups));
  parts.push_back(bytes(matrix.biases, groups));
  return parts;
}

ConversionPlan plan_copy(const Model& model, bool dequantize, const std::string& where) {
  Listing list = model.gguf ? list_gguf_tensors(model) : list_folder_tensors(model, where);
  ConversionPlan plan;
  for (PlannedTensor& tensor : list.tensors) {
    tensor.after = tensor.before;
    if (model.gguf) tensor.after = {0, 0, dtype_option(dtype_from_gguf(model))};
    if (dequantize) tensor.after = {0, 0, tensor.after.dtype};
    if (model.gguf && tensor.matrix.quantized() && !dequantize)
      throw Error(ErrorKind::kUsage,
                  fmt::format("{}: its blocks are for llama.cpp, and not written", where),
                  "--dequantize writes a folder of dense weights");
    tensor.verbatim = !model.gguf && tensor.after == tensor.before;
  }
  // The first matrix's is the default; config.json names those that differ.
  for (const size_t i : list.matrices) {
    const PlannedTensor& tensor = list.tensors[i];
    if (!tensor.after.affine()) continue;
    plan.quantization = QuantizationSpec{{tensor.after.bits, tensor.after.group}, {}};
    break;
  }
  for (size_t i = 0; plan.quantization && i < list.matrices.size(); ++i) {
    const PlannedTensor& tensor = list.tensors[list.matrices[i]];
    std::optional<AffineQuantization> storage;
    if (tensor.after.affine()) storage = AffineQuantization{tensor.after.bits, tensor.after.group};
    if (storage != plan.quantization->defaults)
      plan.quantization->overrides.emplace(module_path(tensor.name), storage);
  }
  plan.tensors = std::move(list.tensors);
  plan.norms = std::move(list.norms);
  return plan;
}

std::vector<std::string> recipe_names() {
  return Recipe::names();
}

}  // namespace lapidary
