// Which matrix gets how many bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lapidary {

constexpr std::array<int, 6> kAffineBits = {2, 3, 4, 5, 6, 8};

// What a matrix costs at each of kAffineBits.
struct BitChoices {
  std::array<int64_t, kAffineBits.size()> bytes = {};
  std::array<double, kAffineBits.size()> loss = {};
};

// For each matrix an index into kAffineBits. All start with the fewest bits; then, as long as
// anything fits, the step that lowers the sum of losses most per byte is taken. The bytes of all
// are at most `budget`, which must be enough for the fewest bits.
std::vector<size_t> spend(std::span<const BitChoices> matrices, int64_t budget);

}  // namespace lapidary
