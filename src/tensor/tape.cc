#include "tensor/tape.h"

#include <algorithm>
#include <utility>

#include "lapidary/error.h"

#include "base/rng.h"
#include "tensor/ops.h"

namespace lapidary {

namespace {
constexpr uint64_t kDropoutStream = 0x64726f70;  // of CounterRng: apart from other uses of a seed
}

void Dropout::apply(Matrix values) const {
  const CounterRng rng(key, kDropoutStream);
  const auto scale = static_cast<float>(1 / (1 - rate));
  for (int64_t i = 0; i < values.size(); ++i)
    values.data[i] *= rng.uniform(static_cast<uint64_t>(i)) < rate ? 0 : scale;
}

void Tape::track(const float* values, int64_t n, float* gradients) {
  const Range range{values, values + n, gradients};
  const auto next = std::lower_bound(ranges_.begin(), ranges_.end(), values,
                                     [](const Range& r, const float* p) { return r.begin < p; });
  LAPIDARY_CHECK((next == ranges_.end() || range.end <= next->begin) &&
                     (next == ranges_.begin() || std::prev(next)->end <= range.begin),
                 "values are tracked once");
  ranges_.insert(next, range);
}

void Tape::untrack(const float* values) {
  const auto range = std::ranges::find(ranges_, values, &Range::begin);
  LAPIDARY_CHECK(range != ranges_.end(), "only what is tracked is untracked");
  ranges_.erase(range);
}

float* Tape::gradient(const float* value) const {
  auto range = std::upper_bound(ranges_.begin(), ranges_.end(), value,
                                [](const float* p, const Range& r) { return p < r.begin; });
  if (range == ranges_.begin() || value >= (--range)->end) return nullptr;
  return range->gradients + (value - range->begin);
}

Matrix Tape::room(int64_t rows, int64_t cols) {
  constexpr int64_t kPieceFloats = int64_t{1} << 22, kLine = 16;
  const int64_t floats = (rows * cols + kLine - 1) / kLine * kLine;
  while (place_.piece < pieces_.size() && place_.used + floats > pieces_[place_.piece].floats) {
    ++place_.piece;
    place_.used = 0;
  }
  if (place_.piece == pieces_.size()) {
    const int64_t size = std::max(floats, kPieceFloats);
    pieces_.push_back({std::make_unique_for_overwrite<float[]>(static_cast<size_t>(size)), size});
  }
  float* data = pieces_[place_.piece].memory.get() + place_.used;
  place_.used += floats;
  place_.floats += floats;
  peak_floats_ = std::max(peak_floats_, place_.floats);
  return {data, rows, cols};
}

Matrix Tape::keep(Executor& ex, Matrix values) {
  const Matrix copy = room(values.rows, values.cols);
  ex.for_each(values.rows, values.cols, [&](int64_t first, int64_t last, int) {
    std::copy(values.row(first), values.row(last), copy.row(first));
  });
  return copy;
}

void Tape::record(std::function<void()> undo) {
  records_.push_back({std::move(undo), place_});
}

void Tape::remake(Matrix result, std::function<void(Matrix out)> make) {
  records_.back().result = result;
  records_.back().make = std::move(make);
}

std::function<Matrix()> Tape::keep_or_remake(Executor& ex, Matrix values) {
  const Matrix last = records_.empty() ? Matrix{} : records_.back().result;
  const bool makes =
      last.data == values.data && last.rows == values.rows && last.cols == values.cols;
  if (last.data == nullptr || !makes) return [copy = keep(ex, values)] { return copy; };
  return [this, rows = values.rows, cols = values.cols, make = records_.back().make] {
    const Matrix out = room(rows, cols);
    make(out);
    return out;
  };
}

void Tape::backward() {
  while (!records_.empty()) {
    records_.back().undo();
    records_.pop_back();
    place_ = records_.empty() ? Place{} : records_.back().end;
  }
  clear();
}

void Tape::clear() {
  records_.clear();
  place_ = {};
}

}  // namespace lapidary
