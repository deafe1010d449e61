// A stored tensor: what a file holds, seen in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace lapidary {

// Row-major view of stored bytes; does not own them. bytes.size() == product(shape) *
// size_of(dtype).
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

// "[4, 256]", for messages.
std::string shape_string(std::span<const int64_t> shape);

}  // namespace lapidary
