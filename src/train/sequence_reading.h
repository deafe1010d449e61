// What a model makes of one sequence, in the arithmetic of training.
#pragma once

#include <cstdint>
#include <vector>

#include "lapidary/progress.h"

#include "gemma/backprop.h"
#include "train/document.h"

namespace lapidary {

struct SequenceReading {
  Loss loss;                       // over the tokens that count
  std::vector<uint8_t> likeliest;  // [T]: of those, 1 where the right token is the likeliest one
};

// One forward pass. The document has at most the tokens that `backprop` has room for.
SequenceReading read_sequence(Backprop& backprop, const Document& document,
                              const Watch& watch = {});

}  // namespace lapidary
