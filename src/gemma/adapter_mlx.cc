// MLX-LM: adapter_config.json, and factors that are the transposes of PEFT's.
#include <algorithm>
#include <vector>

#include <fmt/ranges.h>

#include "base/fail.h"
#include "base/float16.h"
#include "base/json.h"
#include "gemma/adapter_formats.h"
#include "gemma/adapter_parts.h"
#include "io/output_file.h"
#include "io/printable.h"
#include "io/safetensors.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffixes[] = {".lora_a", ".lora_b", ".m"};

std::string path_of(const AdapterFile& file, const AdapterMatrix& m) {
  return file.multimodal ? "language_model." + m.target : m.target;
}

// A wider factor with zeros where it ends: [rows, cols] becomes [rows, wide].
AlignedVector<float> widened(const AlignedVector<float>& values, int64_t cols, int64_t wide) {
  AlignedVector<float> out(values.size() / static_cast<size_t>(cols) * static_cast<size_t>(wide));
  for (int64_t row = 0; row < std::ssize(values) / cols; ++row)
    std::copy_n(values.data() + row * cols, cols, out.data() + row * wide);
  return out;
}

// The tensors of a matrix as the format has them: [K, rank], [rank, N], and DoRA's [N].
std::vector<AlignedVector<float>> factors_of(const AdapterMatrix& m, int64_t rank, double scale) {
  const int64_t cols = std::ssize(m.a) / m.rank, rows = std::ssize(m.b) / m.rank;
  AlignedVector<float> a = widened(turned(m.a, m.rank, cols), m.rank, rank);
  AlignedVector<float> b = m.b;
  if (m.scale != scale)
    for (float& x : b) x = static_cast<float>(x * (m.scale / scale));
  std::vector<AlignedVector<float>> tensors = {std::move(a),
                                               turned(widened(b, m.rank, rank), rows, rank)};
  if (m.dora()) tensors.push_back(m.magnitude);
  return tensors;
}

// The last parts of names where that says it, or every name.
OrderedJson keys_of(const AdapterFile& file) {
  if (whole_layers(file.adapter) > 0) return kinds_of(file.adapter);
  OrderedJson keys = OrderedJson::array();
  for (const AdapterMatrix& m : file.adapter.matrices) keys.push_back(path_of(file, m));
  return keys;
}

}  // namespace

AdapterFile read_mlx_adapter(const OrderedJson& json, const fs::path& config_path,
                             const fs::path& tensors_path) {
  const Json unordered = Json::parse(json.dump());
  const JsonObject config(unordered, config_path.string());
  const std::string type = config.string("fine_tune_type", "lora");
  if (type != "lora" && type != "dora")
    config.fail_field("fine_tune_type",
                      fmt::format("'{}', expected \"lora\" or \"dora\"", printable(type)));
  const JsonObject parameters = config.object("lora_parameters");
  const int64_t rank = parameters.integer("rank");
  const double scale = parameters.number("scale");

  const SafetensorsFile tensors = SafetensorsFile::open(tensors_path);
  const std::string where = tensors_path.string();
  AdapterParts parts(where);
  for (const NamedTensor& tensor : tensors.tensors()) {
    const std::string& name = tensor.name;
    if (name.find("embed_tokens.lora_") != std::string::npos)
      fail_tensor(where, name, "adapts an embedding, expected matrices of layers alone");
    const auto* suffix = std::ranges::find_if(
        kSuffixes, [&](std::string_view known) { return name.ends_with(known); });
    if (suffix == std::end(kSuffixes))
      fail_tensor(where, name,
                  fmt::format("is not known, expected PATH{}", fmt::join(kSuffixes, " or ")));
    const std::string_view path = std::string_view(name).substr(0, name.size() - suffix->size());
    const auto factor = static_cast<Factor>(suffix - kSuffixes);
    parts.add(name, path, factor, tensor.view, factor != Factor::kMagnitude);
  }
  const auto scale_of = [&](const std::string& path, int64_t found) {
    if (found != rank)
      fail("{}: {} has rank {}, but {} says {}", where, path, found, config_path.string(), rank);
    return scale;
  };
  AdapterFile file = parts.finish(scale_of, type == "dora");
  file.format = AdapterFormat::kMlx;
  file.base_model = config.string("model", "");
  file.adapter.set_block = set_block_training(config);
  return file;
}

void write_mlx_adapter(const AdapterFile& file, const fs::path& folder) {
  int64_t rank = 0;
  for (const AdapterMatrix& m : file.adapter.matrices) rank = std::max(rank, m.rank);
  const CommonScale common =
      common_scale(file.adapter, [](const AdapterMatrix& m) { return m.scale; });
  const DType dtype = common.all ? file.dtype : DType::kF32;
  std::vector<TensorDeclaration> declarations;
  for (const AdapterMatrix& m : file.adapter.matrices) {
    const int64_t cols = std::ssize(m.a) / m.rank, rows = std::ssize(m.b) / m.rank;
    declarations.push_back({path_of(file, m) + std::string(kSuffixes[0]), dtype, {cols, rank}});
    declarations.push_back({path_of(file, m) + std::string(kSuffixes[1]), dtype, {rank, rows}});
    if (m.dora())
      declarations.push_back({path_of(file, m) + std::string(kSuffixes[2]), dtype, {rows}});
  }
  SafetensorsWriter writer(folder / "adapters.safetensors", declarations, {{"format", "mlx"}});
  std::vector<std::byte> bytes;
  for (const AdapterMatrix& m : file.adapter.matrices)
    for (const AlignedVector<float>& values : factors_of(m, rank, common.scale)) {
      bytes.resize(values.size() * static_cast<size_t>(size_of(dtype)));
      store_floats(values, dtype, bytes.data());
      writer.write(bytes);
    }
  writer.finish();
  // -1: all layers.
  OrderedJson config = {
      {"fine_tune_type", file.adapter.matrices.front().dora() ? "dora" : "lora"},
      {"model", file.base_model},
      {"num_layers", -1},
      {"lora_parameters",
       {{"rank", rank}, {"scale", common.scale}, {"dropout", 0.0}, {"keys", keys_of(file)}}}};
  if (file.adapter.set_block) config[kSetBlockKey] = to_json(*file.adapter.set_block);
  write_file(folder / "adapter_config.json", config.dump(2) + "\n");
}

}  // namespace lapidary
