// The list of a model's tensors, counted.
#include <algorithm>
#include <numeric>
#include <type_traits>

#include "lapidary/architecture_study.h"

#include "gemma/kv_cache.h"
#include "gemma/load.h"
#include "kernels/kv_rows.h"

namespace lapidary {

namespace {

TensorFigures figures(std::string name, const WeightMatrix& m) {
  return {std::move(name), m.rows, m.cols, format_name(m), m.bytes()};
}

TensorFigures figures(std::string name, const std::vector<float>& norm) {
  const auto rows = std::ssize(norm);
  return {std::move(name), rows, 0, "F32 in memory", rows * int64_t{sizeof(float)}};
}

template <class Items, class Value>
int64_t sum_of(const Items& items, Value value) {
  return std::accumulate(items.begin(), items.end(), int64_t{0},
                         [&](int64_t sum, const auto& item) { return sum + value(item); });
}

}  // namespace

int64_t LayerArchitecture::parameters() const {
  return sum_of(tensors, [](const TensorFigures& t) { return t.parameters(); });
}
int64_t LayerArchitecture::bytes() const {
  return sum_of(tensors, [](const TensorFigures& t) { return t.bytes; });
}
int64_t Architecture::parameters() const {
  return embedding.parameters() + norm.parameters() +
         (config.tie_word_embeddings ? 0 : head.parameters()) +
         sum_of(layers, [](const LayerArchitecture& l) { return l.parameters(); });
}
int64_t Architecture::bytes() const {
  return embedding.bytes + norm.bytes + (config.tie_word_embeddings ? 0 : head.bytes) +
         sum_of(layers, [](const LayerArchitecture& l) { return l.bytes(); });
}

int64_t Architecture::keys(const LayerArchitecture& layer, int64_t context) const {
  return layer.window > 0 ? std::min(context, layer.window) : context;
}

int64_t Architecture::layer_flops(const LayerArchitecture& layer, int64_t context) const {
  const int64_t matrices =
      sum_of(layer.tensors, [](const TensorFigures& t) { return t.cols > 0 ? t.parameters() : 0; });
  return 2 * matrices + 4 * int64_t{config.q_dim()} * keys(layer, context);
}

int64_t Architecture::flops(int64_t context) const {
  return 2 * head.parameters() +
         sum_of(layers, [&](const LayerArchitecture& l) { return layer_flops(l, context); });
}

int64_t Architecture::bytes_read(KvType type, int64_t context) const {
  const int64_t position =
      2 * int64_t{config.num_key_value_heads} * kv_row_bytes(type, config.head_dim);
  return norm.bytes + head.bytes + sum_of(layers, [&](const LayerArchitecture& l) {
           return l.bytes() + keys(l, context) * position;
         });
}

int64_t Architecture::kv_bytes(KvType type, int64_t context) const {
  return kv_cache_bytes(config, type, context);
}

Architecture study_architecture(const std::filesystem::path& path) {
  const Model model = load_model(path, Accept::kEmbeddingToo);
  const Config& c = model.config;
  Architecture made{.model = path.filename().string(), .config = c};
  for (int i = 0; i < c.num_hidden_layers; ++i)
    made.layers.push_back({.layer = i,
                           .sliding = c.is_sliding(i),
                           .window = c.is_sliding(i) ? c.sliding_window : 0,
                           .rope = c.is_sliding(i) ? c.rope_sliding : c.rope_full});
  constexpr std::string_view kLayers = "model.layers.", kWeight = ".weight";
  visit_tensors(c, model.weights, [&](std::string name, const auto& field, int64_t, int64_t) {
    name.resize(name.size() - kWeight.size());
    if (!name.starts_with(kLayers)) {
      (name == "model.norm" ? made.norm : made.embedding) = figures(name, field);
      return;
    }
    const size_t dot = name.find('.', kLayers.size());
    const auto layer = static_cast<size_t>(std::stoi(name.substr(kLayers.size())));
    made.layers[layer].tensors.push_back(figures(name.substr(dot + 1), field));
  });
  made.head = figures("lm_head", model.weights.lm_head);
  return made;
}

}  // namespace lapidary
