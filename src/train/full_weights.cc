#include "train/full_weights.h"

#include <type_traits>

#include "kernels/kernels.h"

namespace lapidary {

FullWeights::FullWeights(const Config& config, Weights& weights,
                         const std::function<bool(std::string_view)>& wanted) {
  const bool tied = weights.lm_head.data == weights.embed_tokens.data;
  visit_tensors(config, weights, [&](const std::string& name, auto& field, int64_t, int64_t) {
    if (!wanted(name)) return;
    if constexpr (std::is_same_v<decltype(field), Linear&>) {
      parameters_.push_back(add_matrix(field));
    } else {
      parameters_.push_back(add_vector(field));
    }
    parameters_.back().name = name;
  });
  for (Parameter& p : parameters_) p.embedding = p.name == "model.embed_tokens.weight";
  if (tied) weights.lm_head = weights.embed_tokens;
}

Parameter FullWeights::add_matrix(Linear& matrix) {
  const auto size = static_cast<size_t>(matrix.rows * matrix.cols);
  AlignedVector<float>& values = values_.emplace_back(size);
  for (int64_t row = 0; row < matrix.rows; ++row)
    best_kernels().dequantize_row(matrix, row, values.data() + row * matrix.cols);
  static_cast<WeightMatrix&>(matrix) = dense_matrix(values.data(), matrix.rows, matrix.cols);
  return {.name = {},
          .value = values,
          .grad = gradients_.emplace_back(size),
          .rows = matrix.rows,
          .cols = matrix.cols};
}

Parameter FullWeights::add_vector(std::vector<float>& values) {
  return {.name = {},
          .value = values,
          .grad = gradients_.emplace_back(values.size()),
          .rows = std::ssize(values),
          .decay = false};
}

void FullWeights::track(Tape& tape) const {
  for (const Parameter& p : parameters_) tape.track(p.value.data(), p.size(), p.grad.data());
}

}  // namespace lapidary
