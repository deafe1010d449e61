#include "tensor/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lapidary {

std::string shape_string(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace lapidary
