// Which options of a run go together.
#pragma once

#include "lapidary/train.h"

#include "train/data.h"

namespace lapidary {

// Throws Error{kUsage} that names the flag.
void check_options(const TrainOptions& options);
// The same of what only the data tells.
void check_options(const TrainOptions& options, const TrainingData& data);

}  // namespace lapidary
