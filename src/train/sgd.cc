#include "train/sgd.h"

#include "train/blocks.h"

namespace lapidary {

Sgd::Sgd(const OptimizerOptions& options, std::span<const Parameter> parameters)
    : Optimizer(options, parameters) {
  if (options.momentum == 0) return;
  for (size_t i = 0; i < parameters.size(); ++i) add_moment(i, "momentum_buffer", MomentType::kF32);
}

void Sgd::update(std::span<const Parameter> parameters, double lr, Executor& ex) {
  std::vector<int64_t> sizes;
  for (const Parameter& p : parameters) sizes.push_back(p.size());
  const auto rate = static_cast<float>(-lr), momentum = static_cast<float>(options_.momentum);
  for_each_piece(sizes, ex.pool(), [&](size_t i, int64_t first, int64_t last, int64_t) {
    const Parameter& p = parameters[i];
    const float decay = p.decay ? static_cast<float>(options_.weight_decay) : 0;
    float* const value = p.value.data();
    const float* const grad = p.grad.data();
    if (entries_[i].moments.empty()) {
      for (int64_t k = first; k < last; ++k) value[k] += rate * (grad[k] + decay * value[k]);
    } else {
      float* const buffer = entries_[i].moments[0].floats();
      for (int64_t k = first; k < last; ++k) {
        buffer[k] = momentum * buffer[k] + (grad[k] + decay * value[k]);
        value[k] += rate * buffer[k];
      }
    }
  });
}

}  // namespace lapidary
