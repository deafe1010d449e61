// Decodes the block formats of ggml (kernels/blocks.h has their layouts).
#pragma once

#include <cstddef>
#include <span>

#include "kernels/kernels.h"

namespace lapidary {

// Whole blocks of `format`, a format of blocks, to floats: bit for bit what ggml's reference gives.
void decode_blocks(WeightFormat format, std::span<const std::byte> blocks, float* values);

}  // namespace lapidary
