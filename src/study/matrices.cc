#include "study/matrices.h"

#include <map>
#include <mutex>

#include <fmt/ranges.h>

#include "base/fail.h"
#include "gemma/adapter.h"
#include "gemma/layer_matrices.h"
#include "generate/engine_impl.h"

namespace lapidary {

std::vector<LayerMatrix> matrices_of(const Engine& engine) {
  const Model& model = inside(engine).model;
  const auto by_name = layer_matrices(model.config, model.weights);
  std::vector<LayerMatrix> list;
  for (int layer = 0; layer < model.config.num_hidden_layers; ++layer)
    for (const std::string& name : adaptable_matrices())
      list.push_back({{layer, name}, by_name.at(fmt::format("model.layers.{}.{}", layer, name))});
  return list;
}

AlignedVector<float> effective_values(const Linear& matrix) {
  AlignedVector<float> values(static_cast<size_t>(matrix.rows * matrix.cols));
  for (int64_t row = 0; row < matrix.rows; ++row)
    effective_row(matrix, row, values.data() + row * matrix.cols);
  return values;
}

namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

Shapes shapes_of(const Engine& engine) {
  const Model& model = inside(engine).model;
  Shapes shapes;
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto&, int64_t rows, int64_t cols) {
                  shapes[name] = cols > 0 ? std::vector{rows, cols} : std::vector{rows};
                });
  return shapes;
}

}  // namespace

void check_same_shapes(const Engine& a, const Engine& b) {
  constexpr size_t kNamed = 4;
  const Shapes of_a = shapes_of(a), of_b = shapes_of(b);
  Shapes all = of_a;
  all.insert(of_b.begin(), of_b.end());
  std::vector<std::string> faults;
  const auto shown = [](const Shapes& shapes, const std::string& name) {
    const auto found = shapes.find(name);
    return found == shapes.end() ? "none" : fmt::format("[{}]", fmt::join(found->second, ", "));
  };
  for (const auto& [name, shape] : all) {
    const std::string left = shown(of_a, name), right = shown(of_b, name);
    if (left != right) faults.push_back(fmt::format("{}: {} and {}", name, left, right));
  }
  const auto layout = [](const Config& c) {  // which the shapes of matrices need not tell
    return fmt::format("{} heads of {}, {} of keys and values", c.num_attention_heads, c.head_dim,
                       c.num_key_value_heads);
  };
  if (const std::string left = layout(a.config()), right = layout(b.config()); left != right)
    faults.insert(faults.begin(), fmt::format("{} and {}", left, right));
  if (faults.empty()) return;
  const size_t left_out = faults.size() - std::min(faults.size(), kNamed);
  faults.resize(std::min(faults.size(), kNamed));
  fail("{} and {} have tensors of different shapes: {}{}", a.folder().string(), b.folder().string(),
       fmt::join(faults, "; "), left_out > 0 ? fmt::format(", and {} more", left_out) : "");
}

void for_each_matrix(ThreadPool& pool, int64_t first, int64_t last, int64_t total,
                     const Watch& watch, const std::function<void(size_t i)>& fn) {
  std::mutex mutex;  // of the report, and how many are done
  int64_t done = first;
  pool.parallel_for(last - first, [&](int64_t from, int64_t to, int) {
    for (int64_t i = from; i < to && !watch.stop.stop_requested(); ++i) {
      fn(static_cast<size_t>(first + i));
      const std::lock_guard lock(mutex);
      watch.report(++done, total);
    }
  });
  watch.throw_if_stopped();
}

}  // namespace lapidary
