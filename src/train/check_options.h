// Which options of a run go together.
#pragma once

#include <string_view>

#include "lapidary/train.h"

#include "train/data.h"

namespace lapidary {

// Throws Error{kUsage} that names the flag.
void check_options(const TrainOptions& options);
// The same of what only the data tells.
void check_options(const TrainOptions& options, const TrainingData& data);

// The one that is named, or the method's own where none is.
std::string_view schedule_name(const TrainOptions& options);

}  // namespace lapidary
