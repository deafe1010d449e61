#pragma once

#include <fmt/format.h>

#include "lapidary/error.h"

#include "tensor/matrix.h"

namespace lapidary {

inline void check_shape(const char* op, Matrix m, int64_t rows, int64_t cols) {
  LAPIDARY_CHECK(
      m.rows == rows && m.cols == cols,
      fmt::format("[{}] got [{}, {}], expected [{}, {}]", op, m.rows, m.cols, rows, cols));
}

}  // namespace lapidary
