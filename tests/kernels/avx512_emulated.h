#pragma once

#include <array>

#include "kernels/kernels.h"

namespace lapidary {

// The tables of AVX-512 and AMX on a machine that has neither, but AVX2.
std::array<const Kernels*, 2> emulated_kernels();

}  // namespace lapidary
