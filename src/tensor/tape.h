// Gradients: what the operations did, to be undone backwards.
//
// An operation that runs on an Executor with a tape leaves a record: what it needs of its inputs,
// which later operations overwrite, and a function that turns the gradient of its result into
// gradients of its inputs. Memory stands for values, as in the forward pass: the gradient of a
// buffer is that of the value it held at that point of time. So a record
//
//   takes    the gradient of the result, and leaves zeros in its place: before this operation the
//            buffer held something that nothing after it has seen
//   adds     to the gradients of the inputs
//
// and operations may overwrite and reuse buffers as they like.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tensor/matrix.h"

namespace lapidary {

class Executor;

// Zeros for a share of the values, the rest larger for it: which ones is a function of the key.
struct Dropout {
  double rate = 0;
  uint64_t key = 0;
  void apply(Matrix values) const;
};

class Tape {
 public:
  // The gradients of the `n` values at `values` are at `gradients`, and start at zero. Both are the
  // caller's, and longer-lived. Values that nobody tracks are constants.
  void track(const float* values, int64_t n, float* gradients);
  // Makes constants again of the values that begin there.
  void untrack(const float* values);
  // Where the gradient of the value at this address is; nullptr for a constant.
  float* gradient(const float* value) const;
  Matrix gradient(Matrix values) const { return {gradient(values.data), values.rows, values.cols}; }

  // Memory that belongs to the next record, until that is undone; in an undo function, until it
  // returns. A few large pieces, as a stack, that the next recording uses again.
  Matrix room(int64_t rows, int64_t cols);
  Matrix keep(Executor& ex, Matrix values);  // a copy

  void record(std::function<void()> undo);
  // Of the operation recorded last: its result, which make(out) makes again of what it keeps. For
  // what costs little beside the product that takes it.
  void remake(Matrix result, std::function<void(Matrix out)> make);
  // What gives an undo function the values that are there now: a copy, or, of the result of the
  // operation recorded last, what that makes again in memory of the undo function's own.
  std::function<Matrix()> keep_or_remake(Executor& ex, Matrix values);
  // Undoes everything that was recorded, last first, and forgets it and what was kept.
  void backward();
  void clear();

  // Dropout on what adapters see: `rate` in [0, 1); each product that asks gets draws of its own.
  void set_dropout(double rate, uint64_t key) { dropout_ = {rate, key}; }
  Dropout next_dropout() { return {dropout_.rate, dropout_.key++}; }
  const Dropout& dropout() const { return dropout_; }

  // Bytes of what room() gave out: the most there were at once since the start.
  int64_t peak_bytes() const { return peak_floats_ * int64_t{sizeof(float)}; }

 private:
  struct Range {
    const float* begin;
    const float* end;
    float* gradients;
  };
  std::vector<Range> ranges_;  // ascending, disjoint
  Dropout dropout_;

  struct Piece {
    std::unique_ptr<float[]> memory;  // not initialised
    int64_t floats;
  };
  std::vector<Piece> pieces_;
  // The end of what is in use.
  struct Place {
    size_t piece = 0;
    int64_t used = 0;    // floats of that piece
    int64_t floats = 0;  // of all
  };
  Place place_;
  int64_t peak_floats_ = 0;

  struct Record {
    std::function<void()> undo;
    Place end;
    Matrix result = {};
    std::function<void(Matrix out)> make = {};
  };
  std::vector<Record> records_;
};

}  // namespace lapidary
