// PEFT: adapter_config.json, and factors as they multiply.
#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
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

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffixes[] = {".lora_A.weight", ".lora_B.weight",
                                          ".lora_magnitude_vector"};

// rank_pattern or alpha_pattern: values for modules whose path ends with what a regular expression
// describes; the first that fits decides.
class Pattern {
 public:
  Pattern(const OrderedJson& config, const char* key, const std::string& where) {
    const auto it = config.find(key);
    if (it == config.end() || it->is_null()) return;
    const auto complain = [&](const std::string& name, const char* expected) {
      fail("{}: field '{}.{}': expected {}", where, key, printable(name), expected);
    };
    if (!it->is_object()) fail("{}: field '{}': expected an object", where, key);
    for (const auto& [name, value] : it->items()) {
      if (!value.is_number()) complain(name, "a number");
      try {
        rules_.emplace_back(std::regex(fmt::format("(.*\\.)?({})", name)), value.get<double>());
      } catch (const std::regex_error&) {
        complain(name, "a regular expression");
      }
    }
  }
  double of(const std::string& path, double otherwise) const {
    for (const auto& [regex, value] : rules_)
      if (std::regex_match(path, regex)) return value;
    return otherwise;
  }

 private:
  std::vector<std::pair<std::regex, double>> rules_;
};

// What would make it more than low-rank updates of matrices.
void refuse_variants(const JsonObject& config) {
  for (const char* key : {"use_qalora", "lora_bias"})
    if (config.boolean(key, false)) config.fail_field(key, "true, expected LoRA or DoRA");
  if (const std::string bias = config.string("bias", "none"); bias != "none")
    config.fail_field("bias", fmt::format("'{}', expected \"none\"", printable(bias)));
  for (const char* key : {"modules_to_save", "trainable_token_indices", "target_parameters",
                          "layer_replication", "alora_invocation_tokens", "use_bdlora",
                          "arrow_config", "kasa_config", "monteclora_config", "velora_config"})
    if (config.has(key) && !config.raw(key).empty())
      config.fail_field(key, shown_json(config.raw(key)) + ", expected plain LoRA");
  // The others are named for what they take off the base when the adapter is made.
  constexpr const char* kKeepBase[] = {"gaussian", "eva", "orthogonal"};
  if (!config.has("init_lora_weights") || config.raw("init_lora_weights").is_boolean()) return;
  if (const std::string how = config.string("init_lora_weights");
      std::ranges::find(kKeepBase, how) == std::end(kKeepBase))
    throw Error(ErrorKind::kInput,
                fmt::format("{}: field 'init_lora_weights': '{}', which changes the base",
                            config.where(), printable(how)),
                "PEFT's save_pretrained with path_initial_model_for_weight_conversion makes plain "
                "LoRA of it");
}

AdapterFile read_tensors(const SafetensorsFile& tensors, const AdapterParts::ScaleOf& scale,
                         bool dora) {
  const std::string where = tensors.path().string();
  AdapterParts parts(where);
  for (const NamedTensor& tensor : tensors.tensors()) {
    const std::string& name = tensor.name;
    if (name.find("lora_embedding_") != std::string::npos)
      fail_tensor(where, name, "adapts an embedding, expected matrices of layers alone");
    const auto* suffix = std::ranges::find_if(
        kSuffixes, [&](std::string_view known) { return name.ends_with(known); });
    if (suffix == std::end(kSuffixes) || !name.starts_with(kPrefix))
      fail_tensor(
          where, name,
          fmt::format("is not known, expected {}PATH{}", kPrefix, fmt::join(kSuffixes, " or ")));
    const std::string_view path = std::string_view(name).substr(
        kPrefix.size(), name.size() - kPrefix.size() - suffix->size());
    parts.add(name, path, static_cast<Factor>(suffix - kSuffixes), tensor.view, false);
  }
  return parts.finish(scale, dora);
}

OrderedJson number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

// scale * rank, free of the rounding of the division that made the scale.
double alpha_of(const AdapterMatrix& m) {
  const double alpha = m.scale * static_cast<double>(m.rank), whole = std::round(alpha);
  return whole / static_cast<double>(m.rank) == m.scale ? whole : alpha;
}

std::string path_of(const AdapterFile& file, const AdapterMatrix& m) {
  constexpr std::string_view kModel = "model.";
  if (!file.multimodal) return m.target;
  return fmt::format("model.language_model.{}", std::string_view(m.target).substr(kModel.size()));
}

// A list of the last parts of names where that says it; or every name; or, where an image encoder
// has modules of the same names, a regular expression.
OrderedJson target_modules(const AdapterFile& file) {
  if (whole_layers(file.adapter) == 0) {
    OrderedJson list = OrderedJson::array();
    for (const AdapterMatrix& m : file.adapter.matrices) list.push_back(path_of(file, m));
    return list;
  }
  std::vector<std::string> names = kinds_of(file.adapter);
  for (std::string& name : names) name.erase(0, name.find('.') + 1);
  if (file.multimodal) return fmt::format(R"(.*language_model.*\.({}))", fmt::join(names, "|"));
  return names;
}

OrderedJson config_of(const AdapterFile& file) {
  const AdapterMatrix& first = file.adapter.matrices.front();
  const int64_t rank = first.rank;
  const double alpha = alpha_of(first);
  OrderedJson ranks = OrderedJson::object(), alphas = OrderedJson::object();
  for (const AdapterMatrix& m : file.adapter.matrices) {
    if (m.rank != rank) ranks[path_of(file, m)] = m.rank;
    if (alpha_of(m) != alpha) alphas[path_of(file, m)] = number(alpha_of(m));
  }
  OrderedJson config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path",
       file.base_model.empty() ? OrderedJson(nullptr) : OrderedJson(file.base_model)},
      {"r", rank},
      {"lora_alpha", number(alpha)},
      {"lora_dropout", 0.0},
      {"target_modules", target_modules(file)},
      {"rank_pattern", ranks},
      {"alpha_pattern", alphas},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"use_rslora", false},
      {"use_dora", first.dora()},
      {"modules_to_save", nullptr},
      {"inference_mode", true}};
  if (file.adapter.set_block) config[kSetBlockKey] = to_json(*file.adapter.set_block);
  return config;
}

}  // namespace

// fan_in_fan_out says how the base stores its weight; the factors are the same either way.
AdapterFile read_peft_adapter(const OrderedJson& json, const fs::path& config_path,
                              const fs::path& tensors_path) {
  const std::string where = config_path.string();
  const Json unordered = Json::parse(json.dump());
  const JsonObject config(unordered, where);
  if (const std::string type = config.string("peft_type"); type != "LORA")
    config.fail_field("peft_type", fmt::format("'{}', expected \"LORA\"", printable(type)));
  refuse_variants(config);
  const double r = config.number("r", 8), alpha = config.number("lora_alpha", 8);
  const bool rank_stabilised = config.boolean("use_rslora", false);
  const Pattern ranks(json, "rank_pattern", where), alphas(json, "alpha_pattern", where);

  const SafetensorsFile tensors = SafetensorsFile::open(tensors_path);
  const auto scale_of = [&](const std::string& path, int64_t rank) {
    if (const double said = ranks.of(path, r); said != static_cast<double>(rank))
      fail("{}: {} has rank {}, but {} says {}", tensors_path.string(), path, rank, where, said);
    const auto n = static_cast<double>(rank);
    return alphas.of(path, alpha) / (rank_stabilised ? std::sqrt(n) : n);
  };
  AdapterFile file = read_tensors(tensors, scale_of, config.boolean("use_dora", false));
  file.format = AdapterFormat::kPeft;
  file.base_model = config.string("base_model_name_or_path", "");
  file.adapter.set_block = set_block_training(config);
  return file;
}

void write_peft_adapter(const AdapterFile& file, const fs::path& folder) {
  std::vector<TensorDeclaration> declarations;
  for (const AdapterMatrix& m : file.adapter.matrices) {
    const std::string path = fmt::format("{}{}", kPrefix, path_of(file, m));
    const int64_t cols = std::ssize(m.a) / m.rank, rows = std::ssize(m.b) / m.rank;
    declarations.push_back({fmt::format("{}{}", path, kSuffixes[0]), file.dtype, {m.rank, cols}});
    declarations.push_back({fmt::format("{}{}", path, kSuffixes[1]), file.dtype, {rows, m.rank}});
    if (m.dora())
      declarations.push_back({fmt::format("{}{}", path, kSuffixes[2]), file.dtype, {rows}});
  }
  SafetensorsWriter writer(folder / "adapter_model.safetensors", declarations, {{"format", "pt"}});
  std::vector<std::byte> bytes;
  for (const AdapterMatrix& m : file.adapter.matrices)
    for (const auto* values : {&m.a, &m.b, &m.magnitude}) {
      if (values->empty()) continue;
      bytes.resize(values->size() * static_cast<size_t>(size_of(file.dtype)));
      store_floats(*values, file.dtype, bytes.data());
      writer.write(bytes);
    }
  writer.finish();
  write_file(folder / "adapter_config.json", config_of(file).dump(2) + "\n");
}

}  // namespace lapidary
