#include "train/lora.h"

#include <cmath>
#include <fnmatch.h>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "base/rng.h"

namespace lapidary {

namespace {

constexpr uint64_t kLoraStream = 0x6c6f7261;

// `name` is that of a matrix within a layer.
bool fits(const std::string& pattern, int64_t layer, const std::string& name) {
  if (pattern.starts_with("layers."))
    return fnmatch(pattern.c_str(), fmt::format("layers.{}.{}", layer, name).c_str(), 0) == 0;
  const std::string word = name.substr(name.find('.') + 1);
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0 ||
         fnmatch(pattern.c_str(), word.c_str(), 0) == 0;
}

// fn(its name, its name within a layer) for each matrix that the options choose.
template <class Fn>
void for_each_target(const Config& c, const LoraOptions& o, Fn&& fn) {
  const int64_t layers = c.num_hidden_layers;
  if (o.last_layers > layers)
    fail_usage("--last-layers: {} given, and the model has {}", o.last_layers, layers);
  const int64_t first = o.last_layers > 0 ? layers - o.last_layers : 0;
  std::set<std::string> fitted;  // of the patterns
  for (int64_t layer = first; layer < layers; ++layer)
    for (const std::string& name : adaptable_matrices()) {
      bool chosen = o.targets.empty();
      for (const std::string& pattern : o.targets)
        if (fits(pattern, layer, name)) {
          chosen = true;
          fitted.insert(pattern);
        }
      if (chosen) fn(fmt::format("model.layers.{}.{}", layer, name), name);
    }
  for (const std::string& pattern : o.targets)
    if (!fitted.contains(pattern))
      fail_usage("--targets: '{}' fits none of {} of layers {} to {}", pattern,
                 fmt::join(adaptable_matrices(), ", "), first, layers - 1);
}

}  // namespace

std::vector<std::string> lora_targets(const Config& c, const LoraOptions& o) {
  std::vector<std::string> targets;
  for_each_target(
      c, o, [&](const std::string& target, const std::string&) { targets.push_back(target); });
  return targets;
}

Adapter make_lora(const Config& c, const LoraOptions& o) {
  if (o.rank < 1) fail_usage("--rank: {} is not positive", o.rank);
  const auto rank = static_cast<double>(o.rank);
  Adapter adapter;
  for_each_target(c, o, [&](const std::string& target, const std::string& name) {
    const auto [rows, cols] = adaptable_shape(c, name);
    adapter.matrices.push_back(
        {.target = target,
         .rank = o.rank,
         .scale = o.alpha / (o.rslora ? std::sqrt(rank) : rank),
         .a = AlignedVector<float>(static_cast<size_t>(o.rank * cols)),
         .b = AlignedVector<float>(static_cast<size_t>(o.rank * rows)),
         .magnitude = AlignedVector<float>(static_cast<size_t>(o.dora ? rows : 0))});
  });
  restart_lora(adapter, o.seed, 0);
  return adapter;
}

void restart_lora(Adapter& adapter, uint64_t seed, uint64_t round) {
  for (size_t i = 0; i < adapter.matrices.size(); ++i) {
    AdapterMatrix& m = adapter.matrices[i];
    const CounterRng rng(mix64(seed ^ mix64(round)), kLoraStream + i);
    const double bound = 1 / std::sqrt(static_cast<double>(std::ssize(m.a) / m.rank));
    for (size_t j = 0; j < m.a.size(); ++j)
      m.a[j] = static_cast<float>(bound * (2 * rng.uniform(j) - 1));
    std::fill(m.b.begin(), m.b.end(), 0.0f);
  }
}

void start_dora(Adapter& adapter) {
  for (AdapterMatrix& m : adapter.matrices)
    for (size_t i = 0; i < m.magnitude.size(); ++i) m.magnitude[i] = 1 / m.inverse_norm[i];
}

AdapterWeights::AdapterWeights(Adapter& adapter) {
  for (AdapterMatrix& m : adapter.matrices) {
    const auto add = [&](const char* factor, AlignedVector<float>& values, int64_t rows) {
      parameters_.push_back({.name = m.target + factor,
                             .value = values,
                             .grad = gradients_.emplace_back(values.size()),
                             .rows = rows,
                             .cols = std::ssize(values) / rows});
    };
    add(".lora_a", m.a, m.rank);
    add(".lora_b", m.b, std::ssize(m.b) / m.rank);
    if (!m.dora()) continue;
    parameters_.push_back({.name = m.target + ".magnitude",
                           .value = m.magnitude,
                           .grad = gradients_.emplace_back(m.magnitude.size()),
                           .rows = std::ssize(m.magnitude),
                           .decay = false});
  }
}

}  // namespace lapidary
