#pragma once

#include "kernels/kernels.h"

namespace lapidary {

// Calling into it needs AVX2.
const Kernels& tile_model_kernels();

}  // namespace lapidary
