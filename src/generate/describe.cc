// What a model consists of, counted.
#include <set>
#include <string>
#include <type_traits>

#include "base/fail.h"
#include "generate/engine_impl.h"

namespace lapidary {

namespace {

enum Part { kEmbedding, kAttention, kMlp, kNorms, kHead };
constexpr const char* kNames[] = {"embedding", "attention", "mlp", "norms", "head"};

Part part_of(const std::string& name, int64_t cols) {
  if (cols == 0) return kNorms;
  if (name.find(".self_attn.") != std::string::npos) return kAttention;
  return name.find(".mlp.") != std::string::npos ? kMlp : kEmbedding;
}

}  // namespace

std::vector<ModelPart> Engine::parts() const {
  const Model& model = impl_->model;
  std::vector<ModelPart> parts(std::size(kNames));
  std::vector<std::set<std::string>> formats(parts.size());
  const auto add_matrix = [&](Part part, const WeightMatrix& m) {
    parts[part].parameters += m.rows * m.cols;
    if (m.quantized()) parts[part].quantized += m.rows * m.cols;
    parts[part].bytes += m.bytes();
    formats[part].insert(format_name(m));
  };
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto& field, int64_t rows, int64_t cols) {
                  const Part part = part_of(name, cols);
                  if constexpr (std::is_same_v<decltype(field), const Linear&>) {
                    add_matrix(part, field);
                  } else {  // held as f32 whatever the file has
                    parts[part].parameters += rows;
                    parts[part].bytes += rows * int64_t{sizeof(float)};
                    formats[part].insert("F32 in memory");
                  }
                });
  if (!model.config.tie_word_embeddings) add_matrix(kHead, model.weights.lm_head);
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].name = kNames[i];
    for (const std::string& format : formats[i])
      parts[i].format += (parts[i].format.empty() ? "" : " and ") + format;
  }
  if (parts[kHead].parameters == 0) parts.pop_back();
  if (const int64_t bytes = impl_->adapter_bytes(); bytes > 0)
    parts.push_back({.name = "adapters",
                     .format = "F32 in memory",
                     .parameters = bytes / int64_t{sizeof(float)},
                     .bytes = bytes});
  return parts;
}

}  // namespace lapidary
