// What is trained: one tensor of weights beside its gradient.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace lapidary {

// A view of f32 master values and the gradient of the loss by them, both row-major without gaps and
// of the same size; owned by others.
struct Parameter {
  std::string name = {};
  std::span<float> value = {};  // [rows, cols], or [rows] of a vector
  std::span<float> grad = {};   // of the same size
  int64_t rows = 0;
  int64_t cols = 0;        // 0: a vector
  bool decay = true;       // whether weight decay applies
  bool embedding = false;  // a table whose rows are looked up: Muon treats it like a vector

  int64_t size() const { return static_cast<int64_t>(value.size()); }
  bool matrix() const { return cols > 0 && !embedding; }
};

}  // namespace lapidary
