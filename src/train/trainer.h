// Training on data that is in memory.
#pragma once

#include "lapidary/train.h"

#include "train/data.h"

namespace lapidary {

// train() on `data`, which options.data only names; the model needs no tokenizer. Sequences have at
// most options.sequence_length tokens.
TrainResult train_on(TrainingData data, const TrainOptions& options, const Watch& watch = {},
                     const TrainEvents& events = {});

}  // namespace lapidary
