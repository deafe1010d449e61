#include "train/adamw.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "train/blocks.h"

namespace lapidary {

namespace {

// The factors of a step, rounded to f32 where PyTorch rounds them.
struct Factors {
  float keep;        // of the value, after weight decay
  float beta1_rest;  // 1 - beta1
  float beta2, beta2_rest;
  float root_of_correction;  // of the second moment
  float eps;
  float rate;  // with the correction of the first moment
};

Factors factors_of(const AdamWItem& item, const OptimizerOptions& options, double lr) {
  const auto steps = static_cast<double>(item.steps);
  const double correction1 = 1 - std::pow(options.beta1, steps);
  const double correction2 = 1 - std::pow(options.beta2, steps);
  const double decay = item.parameter->decay ? options.weight_decay : 0;
  return {.keep = static_cast<float>(1 - lr * decay),
          .beta1_rest = static_cast<float>(1 - options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .beta2_rest = static_cast<float>(1 - options.beta2),
          .root_of_correction = static_cast<float>(std::sqrt(correction2)),
          .eps = static_cast<float>(options.eps),
          .rate = static_cast<float>(-(lr / correction1))};
}

void move(const Factors& f, int64_t count, const float* __restrict grad, float* __restrict value,
          float* __restrict first, float* __restrict second) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i];
    first[i] += f.beta1_rest * (g - first[i]);
    second[i] = second[i] * f.beta2 + f.beta2_rest * g * g;
    const float denominator = std::sqrt(second[i]) / f.root_of_correction + f.eps;
    value[i] = value[i] * f.keep + f.rate * first[i] / denominator;
  }
}

// The same with moments that are decoded before and encoded after, a block at a time. A draw
// of 64 bits decides four roundings, by the place of the elements and the step alone.
void move_8bit(const Factors& f, const AdamWItem& item, const CounterRng& rng, int64_t begin,
               int64_t end) {
  std::array<float, kMomentBlock> first, second;
  std::array<uint16_t, 2 * kMomentBlock> random;
  for (int64_t at = begin; at < end; at += kMomentBlock) {
    const int64_t count = std::min(kMomentBlock, end - at);
    item.first->decode(at, count, first.data());
    item.second->decode(at, count, second.data());
    move(f, count, item.parameter->grad.data() + at, item.parameter->value.data() + at,
         first.data(), second.data());
    for (size_t i = 0; i < random.size(); i += 4) {
      const uint64_t bits = rng.bits((static_cast<uint64_t>(at) * 2 + i) / 4);
      std::memcpy(&random[i], &bits, sizeof bits);
    }
    item.first->encode(at, count, first.data(), random.data());
    item.second->encode(at, count, second.data(), random.data() + kMomentBlock);
  }
}

}  // namespace

void adamw_step(std::span<const AdamWItem> items, const OptimizerOptions& options, double lr,
                ThreadPool& pool) {
  std::vector<int64_t> sizes;
  std::vector<Factors> factors;
  for (const AdamWItem& item : items) {
    sizes.push_back(item.parameter->size());
    factors.push_back(factors_of(item, options, lr));
  }
  for_each_piece(sizes, pool, [&](size_t i, int64_t begin, int64_t end, int64_t) {
    const AdamWItem& item = items[i];
    const Parameter& p = *item.parameter;
    if (item.first->type() == MomentType::kF32) {
      move(factors[i], end - begin, p.grad.data() + begin, p.value.data() + begin,
           item.first->floats() + begin, item.second->floats() + begin);
    } else {
      const CounterRng rng(options.seed + i, static_cast<uint64_t>(item.steps));
      move_8bit(factors[i], item, rng, begin, end);
    }
  });
}

AdamW::AdamW(const OptimizerOptions& options, std::span<const Parameter> parameters)
    : Optimizer(options, parameters) {
  const bool bytes = options.kind == OptimizerKind::kAdamW8;
  for (size_t i = 0; i < parameters.size(); ++i) {
    add_moment(i, "exp_avg", bytes ? MomentType::kSigned8 : MomentType::kF32);
    add_moment(i, "exp_avg_sq", bytes ? MomentType::kUnsigned8 : MomentType::kF32);
  }
}

void AdamW::update(std::span<const Parameter> parameters, double lr, Executor& ex) {
  std::vector<AdamWItem> items;
  for (size_t i = 0; i < parameters.size(); ++i)
    items.push_back({&parameters[i], &entries_[i].moments[0], &entries_[i].moments[1], steps_[i]});
  adamw_step(items, options_, lr, ex.pool());
}

}  // namespace lapidary
