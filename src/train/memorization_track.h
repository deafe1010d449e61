// What a model comes to know by heart while it is trained.
#pragma once

#include <cstdint>
#include <vector>

#include "lapidary/progress.h"
#include "lapidary/train.h"

#include "gemma/backprop.h"
#include "train/data.h"

namespace lapidary {

// Some sequences of the training data, and of the validation data where there are any, with their
// losses under the model that training begins with: the reference.
class MemorizationTrack {
 public:
  // At most `sample` of each, evenly spread. Reads them with the model as it is: that must be the
  // one before the first step. The data must outlive this.
  MemorizationTrack(const TrainingData& data, int64_t sample, Backprop& backprop,
                    const Watch& watch);

  // With the model as it is by now.
  TrackedMemorization measure(Backprop& backprop, const Watch& watch) const;

 private:
  struct Side {
    const Dataset* data = nullptr;  // none where there is no validation
    std::vector<int64_t> sequences;
    std::vector<double> reference;  // nats of each
  };
  static Side side(const Dataset* data, int64_t sample, Backprop& backprop, const Watch& watch);

  Side train_, valid_;
};

}  // namespace lapidary
