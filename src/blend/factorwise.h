// Blends of each value for itself, of factors or of whole updates, as peft.add_weighted_adapter
// makes them.
#pragma once

#include <cstdint>
#include <span>

#include "lapidary/blend.h"

#include "gemma/low_rank.h"

namespace lapidary {

// The blend of the terms, whose ranks must be the same, with scale 1. `stream` numbers the matrix
// for DARE's random numbers: values of the same place in other matrices have other ones.
AdapterMatrix blend_factors(std::span<const Term> terms, const BlendOptions& options,
                            uint64_t stream);

// Of the updates [N, K], which may have any ranks, multiplied out: 4 bytes for each value of each
// term, and 8 for each of the blend.
Eigen::MatrixXd blend_updates(std::span<const Term> terms, const BlendOptions& options,
                              uint64_t stream);

}  // namespace lapidary
