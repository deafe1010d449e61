// Sequences of tokens in memory, to train on.
#pragma once

#include <vector>

#include "lapidary/token.h"

#include "train/data.h"

namespace lapidary {

// A document of these tokens, of which all but the first count.
Document all_but_first(std::vector<Token> tokens);

// A document of each sequence, of which all tokens but the first count. There is at least one
// sequence, and each has two tokens or more.
TrainingData token_data(std::vector<std::vector<Token>> sequences);

}  // namespace lapidary
