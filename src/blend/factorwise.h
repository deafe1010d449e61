// Blends of each factor for itself, as peft.add_weighted_adapter makes them.
#pragma once

#include <cstdint>
#include <span>

#include "lapidary/blend.h"

#include "blend/low_rank.h"

namespace lapidary {

// The blend of the terms, whose ranks must be the same, with scale 1. `stream` numbers the matrix
// for DARE's random numbers: values of the same place in other matrices have other ones.
AdapterMatrix blend_factors(std::span<const Term> terms, const BlendOptions& options,
                            uint64_t stream);

}  // namespace lapidary
