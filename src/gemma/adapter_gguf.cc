// GGUF-LoRA, as llama.cpp takes it: general.type "adapter", adapter.type "lora", one alpha for all.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/fail.h"
#include "base/float16.h"
#include "gemma/adapter_formats.h"
#include "gemma/adapter_parts.h"
#include "gemma/gguf_model.h"
#include "io/gguf.h"
#include "io/gguf_keys.h"
#include "io/printable.h"

namespace lapidary {

namespace {

constexpr std::string_view kSuffixes[] = {".lora_a", ".lora_b"};

// "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj"; "" if it is no matrix of a layer.
std::string target_of(std::string_view name) {
  constexpr std::string_view kLayers = "blk.";
  if (!name.starts_with(kLayers)) return "";
  const std::string_view layer =
      name.substr(kLayers.size(), name.find('.', kLayers.size()) - kLayers.size());
  for (const std::string& kind : adaptable_matrices()) {
    const std::string target = fmt::format("model.layers.{}.{}", layer, kind);
    if (gguf_tensor_name(Config{}, target + ".weight") == name) return target;
  }
  return "";
}

TensorView view_of(const GgufTensor& tensor, const std::string& where) {
  const DType dtype = tensor.type == GgmlType::kF32   ? DType::kF32
                      : tensor.type == GgmlType::kF16 ? DType::kF16
                                                      : DType::kBF16;
  if (dtype == DType::kBF16 && tensor.type != GgmlType::kBF16)
    fail_tensor(where, tensor.name,
                fmt::format("type {}, expected F32, F16 or BF16", info_of(tensor.type).name));
  return {dtype, tensor.shape, tensor.bytes};
}

GgmlType ggml_type(DType dtype) {
  return dtype == DType::kF32   ? GgmlType::kF32
         : dtype == DType::kF16 ? GgmlType::kF16
                                : GgmlType::kBF16;
}

}  // namespace

AdapterFile read_gguf_adapter(const std::filesystem::path& path) {
  const std::string where = path.string();
  const GgufFile gguf = GgufFile::open(path);
  const GgufKeys keys(gguf.contents(), where);
  if (!keys.has("general.type") || keys.string("general.type") != "adapter")
    keys.fail_key("general.type", "expected \"adapter\"");
  if (const std::string& type = keys.string("adapter.type"); type != "lora")
    keys.fail_key("adapter.type", fmt::format("'{}', expected \"lora\"", printable(type)));
  const std::optional<double> alpha = keys.find_number("adapter.lora.alpha");
  if (!alpha) keys.fail_key("adapter.lora.alpha", "is missing");

  AdapterParts parts(where);
  for (const GgufTensor& tensor : gguf.contents().tensors) {
    const int factor = tensor.name.ends_with(kSuffixes[0])   ? 0
                       : tensor.name.ends_with(kSuffixes[1]) ? 1
                                                             : -1;
    if (factor < 0)
      fail_tensor(where, tensor.name,
                  fmt::format("is not known, expected NAME{} or {}", kSuffixes[0], kSuffixes[1]));
    const std::string target = target_of(
        std::string_view(tensor.name).substr(0, tensor.name.size() - kSuffixes[factor].size()));
    parts.add(tensor.name, target, static_cast<Factor>(factor), view_of(tensor, where), false);
  }
  // As llama.cpp: an alpha of 0 stands for no scale.
  const auto scale_of = [&](const std::string&, int64_t rank) {
    return *alpha == 0 ? 1.0 : *alpha / static_cast<double>(rank);
  };
  AdapterFile file = parts.finish(scale_of, false);
  file.format = AdapterFormat::kGguf;
  file.adapter.set_block = set_block_training(keys);
  if (keys.has("general.name")) file.base_model = keys.string("general.name");
  return file;
}

void write_gguf_adapter(const AdapterFile& file, const Config& config,
                        const std::filesystem::path& path) {
  const auto alpha_of = [](const AdapterMatrix& m) {
    return m.scale * static_cast<double>(m.rank);
  };
  // Where the model's query matrices had to be multiplied by something, so have their updates.
  const double query_factor = config.qk_norm() ? 1 : gguf_query_factor(config);
  const CommonScale common = common_scale(file.adapter, alpha_of);
  const auto factor_of = [&](const AdapterMatrix& m) {
    return alpha_of(m) / common.scale * (m.target.ends_with(".q_proj") ? query_factor : 1);
  };
  const bool unchanged = std::ranges::all_of(
      file.adapter.matrices, [&](const AdapterMatrix& m) { return factor_of(m) == 1; });
  const DType dtype = unchanged ? file.dtype : DType::kF32;

  GgufMetadata metadata = {{"general.architecture", gguf_architecture(config)},
                           {"general.type", std::string("adapter")},
                           {"adapter.type", std::string("lora")},
                           {"adapter.lora.alpha", static_cast<float>(common.scale)}};
  if (file.adapter.set_block)
    std::ranges::move(to_gguf(*file.adapter.set_block), std::back_inserter(metadata));
  std::vector<GgufTensorDeclaration> declarations;
  for (const AdapterMatrix& m : file.adapter.matrices) {
    const std::string name = gguf_tensor_name(config, m.target + ".weight");
    const int64_t cols = std::ssize(m.a) / m.rank, rows = std::ssize(m.b) / m.rank;
    declarations.push_back({name + std::string(kSuffixes[0]), ggml_type(dtype), {m.rank, cols}});
    declarations.push_back({name + std::string(kSuffixes[1]), ggml_type(dtype), {rows, m.rank}});
  }
  GgufWriter writer(path, metadata, declarations);
  std::vector<std::byte> bytes;
  const auto write = [&](const AlignedVector<float>& values) {
    bytes.resize(values.size() * static_cast<size_t>(size_of(dtype)));
    store_floats(values, dtype, bytes.data());
    writer.write(bytes);
  };
  for (const AdapterMatrix& m : file.adapter.matrices) {
    write(m.a);
    AlignedVector<float> b = m.b;
    if (factor_of(m) != 1)
      for (float& x : b) x = static_cast<float>(x * factor_of(m));
    write(b);
  }
  writer.finish();
}

}  // namespace lapidary
