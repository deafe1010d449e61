// What the columns of a point are made of.
#pragma once

#include <cstdint>

#include "lapidary/config.h"
#include "lapidary/tap.h"

namespace lapidary {

// Heads of queries, of keys and values, of head_dim columns each; 0 of what has none.
int64_t heads_of(const Config& config, const TapPoint& point);

}  // namespace lapidary
