// The kernel table of AArch64. Calling into one the CPU lacks is an illegal instruction: ask
// supported_kernels().
#pragma once

#include "kernels/kernels.h"

namespace lapidary::neon {
const Kernels& kernels();  // needs the dot products of Armv8.2
}
