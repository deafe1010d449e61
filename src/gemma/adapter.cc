#include "gemma/adapter.h"

#include <map>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"

namespace lapidary {

std::vector<std::string> adaptable_matrices() {
  return {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
}

std::pair<int64_t, int64_t> adaptable_shape(const Config& c, std::string_view name) {
  if (name == "self_attn.q_proj") return {c.q_dim(), c.hidden_size};
  if (name == "self_attn.o_proj") return {c.hidden_size, c.q_dim()};
  if (name == "mlp.down_proj") return {c.hidden_size, c.intermediate_size};
  if (name.starts_with("mlp.")) return {c.intermediate_size, c.hidden_size};
  return {c.kv_dim(), c.hidden_size};
}

void attach(const Adapter& adapter, double strength, const Config& config, Weights& weights) {
  std::map<std::string, Linear*> matrices;
  visit_tensors(config, weights, [&](const std::string& name, auto& field, int64_t, int64_t) {
    if constexpr (std::is_same_v<decltype(field), Linear&>)
      if (name.starts_with("model.layers."))
        matrices[name.substr(0, name.size() - std::string(".weight").size())] = &field;
  });
  std::vector<std::string> faults;
  for (const AdapterMatrix& m : adapter.matrices) {
    const auto found = matrices.find(m.target);
    if (found == matrices.end()) {
      faults.push_back(fmt::format("{}: the model has no such matrix", m.target));
      continue;
    }
    const int64_t rows = std::ssize(m.b) / m.rank, cols = std::ssize(m.a) / m.rank;
    if (rows != found->second->rows || cols != found->second->cols)
      faults.push_back(fmt::format("{}: made for a matrix [{}, {}], the model's is [{}, {}]",
                                   m.target, rows, cols, found->second->rows, found->second->cols));
  }
  if (!faults.empty()) fail("the adapter does not fit this model: {}", fmt::join(faults, "; "));
  for (const AdapterMatrix& m : adapter.matrices)
    matrices[m.target]->low_rank.push_back({.a = m.a.data(),
                                            .b = m.b.data(),
                                            .rank = m.rank,
                                            .scale = static_cast<float>(m.scale * strength)});
}

}  // namespace lapidary
