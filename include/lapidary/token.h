// room: base
#pragma once

#include <cstdint>

namespace lapidary {

// An index into a model's vocabulary.
using Token = int32_t;

}  // namespace lapidary
