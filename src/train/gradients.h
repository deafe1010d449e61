// The size of all gradients together.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "train/parameter.h"

namespace lapidary {

// The square root of the sum of squares over all gradients, added up in double in an order that
// depends on the sizes of the parameters alone. NaN or inf where a gradient is.
double gradient_norm(std::span<const Parameter> parameters, ThreadPool& pool);

// Multiplies all gradients by max_norm / (norm + 1e-6), as PyTorch does, where the norm is above
// max_norm > 0; leaves them as they are otherwise and where the norm is not finite. Returns the
// norm before.
double clip_gradients(std::span<const Parameter> parameters, double max_norm, ThreadPool& pool);

}  // namespace lapidary
