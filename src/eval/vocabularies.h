// Whether two models mean the same by a token id.
#pragma once

#include "lapidary/engine.h"

namespace lapidary {

// Throws Error{kInput} naming the first difference. Of a model without a tokenizer only the size of
// the vocabulary can be compared.
void check_same_vocabulary(const Engine& a, const Engine& b);

}  // namespace lapidary
