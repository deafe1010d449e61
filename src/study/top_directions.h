// The strongest directions of a large matrix, for less than all of them cost.
#pragma once

#include <cstdint>

#include "gemma/low_rank.h"
#include "tensor/matrix.h"

namespace lapidary {

// Nearly the `count` largest singular values and their vectors, by a block Krylov space (arXiv
// 1504.05477) of at most 256 dimensions from a start that is drawn anew alike each time; of a
// matrix that has no more on its shorter side, all but exactly. Products are of f32. Costs about
// 800 multiply-adds for each value of the matrix, by one thread.
SingularParts top_directions(Matrix m, int64_t count);

}  // namespace lapidary
