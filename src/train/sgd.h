// Stochastic gradient descent, with momentum where asked for.
#pragma once

#include "train/optimizer.h"

namespace lapidary {

class Sgd : public Optimizer {
 public:
  Sgd(const OptimizerOptions& options, std::span<const Parameter> parameters);

 private:
  void update(std::span<const Parameter> parameters, double lr, Executor& ex) override;
};

}  // namespace lapidary
