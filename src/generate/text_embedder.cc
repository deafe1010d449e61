// What sentence-transformers puts after a model: modules.json lists its parts, each of which has a
// folder with a config.json of its own.
#include "lapidary/text_embedder.h"

#include <algorithm>
#include <cmath>

#include "base/fail.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/text_hash.h"
#include "io/checkpoint.h"
#include "tensor/ops.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

struct Module {
  std::string kind;  // the last part of its type: "Pooling"
  fs::path folder;
};

std::vector<Module> read_modules(const fs::path& folder) {
  const fs::path file = folder / "modules.json";
  std::error_code error;  // what cannot be asked about cannot be read either, which says why
  if (!fs::exists(file, error) && !error)
    throw Error(ErrorKind::kInput,
                fmt::format("{}: no modules.json, expected a model that embeds texts, as "
                            "sentence-transformers lays it out",
                            folder.string()),
                "lapidary pull google/embeddinggemma-300m");
  const Json list = read_json_file(file);
  if (!list.is_array()) fail("{}: expected a list of modules", file.string());
  std::vector<Module> modules;
  for (const Json& item : list) {
    const JsonObject module(item, fmt::format("{}: module {}", file.string(), modules.size()));
    const std::string type = module.string("type");
    if (!type.starts_with("sentence_transformers."))
      module.fail_field("type", fmt::format("{} is not of sentence_transformers", type));
    const std::string path = module.string("path");
    modules.push_back({type.substr(type.rfind('.') + 1), path.empty() ? folder : folder / path});
  }
  // Transformer, Pooling, Dense..., Normalize
  std::string kinds, expected = "Transformer Pooling";
  for (const Module& m : modules) kinds += (kinds.empty() ? "" : " ") + m.kind;
  for (const Module& m : modules) expected += m.kind == "Dense" ? " Dense" : "";
  if (kinds != expected && kinds != expected + " Normalize")
    fail(
        "{}: expected the modules Transformer, Pooling, Dense (any number) and Normalize, found {}",
        file.string(), kinds.empty() ? "none" : kinds);
  return modules;
}

void refuse_other_than(const JsonObject& config, std::string_view key, std::string_view expected) {
  if (!config.has(key)) return;
  if (const std::string found = config.string(key); found != expected)
    config.fail_field(key, fmt::format("expected {}, found {}", expected, shown_json(Json(found))));
}

// The mean over all tokens, those of the prompt too. Newer files have one key, older a flag per
// mode.
void check_pooling(const fs::path& folder, int hidden_size) {
  const fs::path file = folder / "config.json";
  const Json json = read_json_file(file);
  const JsonObject config(json, file.string());
  refuse_other_than(config, "pooling_mode", "mean");
  if (!config.has("pooling_mode") && !config.boolean("pooling_mode_mean_tokens", false))
    config.fail_field("pooling_mode_mean_tokens", "expected true");
  for (const auto& [key, value] : json.items())
    if (key.starts_with("pooling_mode_") && key != "pooling_mode_mean_tokens" &&
        config.boolean(key, false))
      config.fail_field(key, "true is not supported, only the mean over tokens");
  if (!config.boolean("include_prompt", true))
    config.fail_field("include_prompt", "false is not supported");
  for (const char* key : {"word_embedding_dimension", "embedding_dimension"})
    if (config.integer(key, hidden_size) != hidden_size)
      config.fail_field(key, fmt::format("expected {}, the model's hidden_size, found {}",
                                         hidden_size, config.integer(key)));
}

// A linear layer: y = x wᵀ.
struct Dense {
  Checkpoint weights;
  Linear linear;  // points into it

  Dense(const fs::path& folder, int64_t in) : weights(Checkpoint::open(folder)) {
    const fs::path file = folder / "config.json";
    const Json json = read_json_file(file);
    const JsonObject config(json, file.string());
    refuse_other_than(config, "activation_function", "torch.nn.modules.linear.Identity");
    config.string("activation_function");  // without it, sentence-transformers takes tanh
    for (const char* key : {"module_input_name", "module_output_name"})
      refuse_other_than(config, key, "sentence_embedding");
    for (const char* key : {"bias", "use_residual"})
      if (config.boolean(key, key == std::string_view("bias")))
        config.fail_field(key, "true is not supported");
    if (config.integer("in_features") != in)
      config.fail_field("in_features", fmt::format("expected {}, what comes before it, found {}",
                                                   in, config.integer("in_features")));
    linear.cols = in;
    linear.rows = config.integer("out_features");
    find_weight();
  }

 private:
  void find_weight() {
    const std::string where = weights.folder().string();
    for (const NamedTensor& tensor : weights.tensors()) {
      if (tensor.name != "linear.weight")
        fail("{}: tensor {}: expected linear.weight alone", where, tensor.name);
      const std::vector<int64_t> shape = {linear.rows, linear.cols};
      if (tensor.view.shape != shape)
        fail("{}: tensor {}: shape {}, expected {} by config.json", where, tensor.name,
             shape_string(tensor.view.shape), shape_string(shape));
      if (!is_float(tensor.view.dtype))
        fail("{}: tensor {}: dtype {} does not fit here", where, tensor.name,
             name_of(tensor.view.dtype));
      linear.dtype = tensor.view.dtype;
      linear.data = tensor.view.bytes.data();
    }
    if (linear.data == nullptr) fail("{}: tensor linear.weight is missing", where);
  }
};

std::string read_prompt(const fs::path& folder, const std::string& task) {
  const fs::path file = folder / "config_sentence_transformers.json";
  const Json json = read_json_file(file);
  const JsonObject prompts = JsonObject(json, file.string()).object("prompts");
  return prompts.string(task);
}

// What the folder says of texts: how many tokens, and that they are read as they are.
int64_t read_max_tokens(const fs::path& folder, int64_t positions) {
  const fs::path file = folder / "sentence_bert_config.json";
  std::error_code error;
  if (!fs::exists(file, error) && !error) return positions;
  const Json json = read_json_file(file);
  const JsonObject config(json, file.string());
  if (config.boolean("do_lower_case", false))
    config.fail_field("do_lower_case", "true is not supported");
  return std::min(positions, config.integer("max_seq_length", positions));
}

}  // namespace

struct TextEmbedder::Impl {
  std::shared_ptr<const Engine> engine;
  std::vector<Dense> layers;
  std::string prompt;
  int64_t max_tokens = 0;
  Executor executor{best_kernels(), 1};  // of the layers: one row, not worth waking threads
};

TextEmbedder::TextEmbedder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TextEmbedder::TextEmbedder(TextEmbedder&&) noexcept = default;
TextEmbedder& TextEmbedder::operator=(TextEmbedder&&) noexcept = default;
TextEmbedder::~TextEmbedder() = default;

TextEmbedder TextEmbedder::load(const fs::path& folder, const EngineOptions& options,
                                const std::string& task) {
  const std::vector<Module> modules = read_modules(folder);
  auto impl = std::make_unique<Impl>();
  impl->prompt = read_prompt(folder, task);
  impl->engine = Engine::load(modules[0].folder, options);
  const Config& config = impl->engine->config();
  check_pooling(modules[1].folder, config.hidden_size);
  int64_t width = config.hidden_size;
  for (const Module& module : modules)
    if (module.kind == "Dense") width = impl->layers.emplace_back(module.folder, width).linear.rows;
  impl->max_tokens = read_max_tokens(modules[0].folder, config.max_position_embeddings);
  TextEmbedder embedder(std::move(impl));
  embedder.embed("");  // what is wrong with the tokenizer or the weights shows now
  return embedder;
}

std::vector<Token> TextEmbedder::tokens(std::string_view text) const {
  std::vector<Token> ids = impl_->engine->tokenizer().encode_framed(
      impl_->prompt + std::string(text), ControlText::kLiteral);
  if (std::ssize(ids) > max_tokens())
    fail("{}: a text of {} tokens with its prompt, of which the model reads {} at most",
         engine().folder().string(), ids.size(), max_tokens());
  return ids;
}

std::vector<float> TextEmbedder::embed(std::string_view text) {
  std::vector<float> x = impl_->engine->mean_hidden_state(tokens(text));
  for (const Dense& layer : impl_->layers) {
    std::vector<float> y(static_cast<size_t>(layer.linear.rows));
    matmul(impl_->executor, {x.data(), 1, layer.linear.cols}, layer.linear,
           {y.data(), 1, layer.linear.rows});
    x = std::move(y);
  }
  double squares = 0;
  for (const float value : x) squares += double{value} * value;
  if (!(squares > 0 && std::isfinite(squares)))
    fail("{}: a text's direction has no finite length", engine().folder().string());
  for (float& value : x) value = static_cast<float>(value / std::sqrt(squares));
  return x;
}

const std::string& TextEmbedder::prompt() const {
  return impl_->prompt;
}
int64_t TextEmbedder::max_tokens() const {
  return impl_->max_tokens;
}
const Engine& TextEmbedder::engine() const {
  return *impl_->engine;
}

uint64_t TextEmbedder::fingerprint() const {
  uint64_t hash = hash_text(impl_->engine->fingerprint(), impl_->prompt);
  for (const Dense& layer : impl_->layers) {
    hash = mix64(hash ^ static_cast<uint64_t>(layer.linear.rows));
    for (int64_t i = 0; i < layer.linear.bytes(); ++i)
      hash = mix64(hash ^ static_cast<uint64_t>(layer.linear.data[i]));
  }
  return hash;
}

}  // namespace lapidary
