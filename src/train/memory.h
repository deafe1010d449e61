// What a run will need, before it begins.
#pragma once

#include <cstdint>

#include "lapidary/train.h"

#include "gemma/load.h"

namespace lapidary {

// Rows that the model sees at once, where micro_batch is set: with set blocks each token is there
// twice.
int64_t rows_at_once(const TrainOptions& options);

// Bytes of a run with these options, whose micro_batch is set, of which the process holds `now`
// already: without weights, whose files are mapped and untouched.
TrainMemory training_memory(const TrainOptions& options, const Model& model, int64_t now);

// Sets what the options leave open, micro_batch and checkpoint_layers, to the least computing that
// fits into max_memory, or into what the machine has. A micro-batch is one row where max_memory is
// not given: its sums round otherwise, and runs on different machines should not differ. Throws
// Error{kResource} with the least that a run needs when nothing fits.
TrainMemory choose_memory(TrainOptions& options, const Model& model);

}  // namespace lapidary
