// AdamW: decoupled weight decay, both moments corrected for their start from zero.
#pragma once

#include <span>

#include "train/optimizer.h"

namespace lapidary {

// One tensor's part in a step. The moments are both of kF32, or of 8 bits, signed and unsigned.
struct AdamWItem {
  const Parameter* parameter = nullptr;
  Moment* first = nullptr;   // the average of gradients
  Moment* second = nullptr;  // the average of their squares
  int64_t steps = 0;         // with this one
};

// Reads 16 and writes 12 bytes per value with f32 moments, 10 and 6 with 8-bit ones.
void adamw_step(std::span<const AdamWItem> items, const OptimizerOptions& options, double lr,
                ThreadPool& pool);

class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerOptions& options, std::span<const Parameter> parameters);

 private:
  void update(std::span<const Parameter> parameters, double lr, Executor& ex) override;
};

}  // namespace lapidary
