// Changes of activations.
#include <algorithm>

#include "lapidary/activations.h"

#include "base/fail.h"
#include "base/float16.h"
#include "io/safetensors.h"

namespace lapidary {

namespace {

// Row `row` of the change's columns.
void read_row(const TensorView& tensor, int64_t row, const Intervention& change, float* out) {
  const int64_t first = row * change.width + change.first_col;
  for (int64_t i = 0; i < change.cols; ++i)
    out[i] = float_at(tensor.bytes.data(), tensor.dtype, first + i);
}

// Of [rows, width], or of one row alone, [width]; the width may be [heads, width of one]. 0 for
// another shape.
int64_t rows_of(std::span<const int64_t> shape, const Intervention& change) {
  if (!shape.empty() && shape.back() == change.width)
    shape = shape.first(shape.size() - 1);
  else if (change.heads > 0 && shape.size() > 1 && shape[shape.size() - 2] == change.heads &&
           shape.back() * change.heads == change.width)
    shape = shape.first(shape.size() - 2);
  else
    return 0;
  if (shape.empty()) return 1;
  return shape.size() == 1 ? shape[0] : 0;
}

std::vector<float> mean_of_rows(const std::vector<float>& values, int64_t cols) {
  std::vector<double> sums(static_cast<size_t>(cols));
  for (size_t i = 0; i < values.size(); ++i) sums[i % sums.size()] += double{values[i]};
  std::vector<float> mean;
  const double rows = static_cast<double>(values.size()) / static_cast<double>(cols);
  for (const double sum : sums) mean.push_back(static_cast<float>(sum / rows));
  return mean;
}

void change_rows(const Intervention& change, const Activation& a) {
  const bool same = std::ssize(change.values) <= change.cols;  // for every token, or zero
  const int64_t known = same ? a.position + a.rows : std::ssize(change.values) / change.cols;
  for (int64_t i = 0; i < std::min(a.rows, known - a.position); ++i) {
    float* row = a.row(i) + change.first_col;
    if (change.values.empty()) {
      std::fill_n(row, change.cols, 0.0f);
      continue;
    }
    const float* values = change.values.data() + (same ? 0 : (a.position + i) * change.cols);
    if (change.kind == Intervention::Kind::kReplace)
      std::copy_n(values, change.cols, row);
    else
      for (int64_t k = 0; k < change.cols; ++k) row[k] += change.strength * values[k];
  }
}

void read_change(Intervention& change, const SafetensorsFile& file, bool mean) {
  const std::string name = change.at.name();
  const TensorView* tensor = file.find(name);
  if (tensor == nullptr) fail("{}: no tensor {}", file.path().string(), name);
  const auto complain = [&](const std::string& problem) {
    fail("{}: tensor {}: {}", file.path().string(), name, problem);
  };
  if (!is_float(tensor->dtype)) complain("expected floats");
  const int64_t rows = rows_of(tensor->shape, change);
  if (rows < 1)
    complain(fmt::format("shape {}, expected [tokens, {}] or [{}]{}", shape_string(tensor->shape),
                         change.width, change.width,
                         change.heads > 0 ? fmt::format(", or {} heads apart", change.heads) : ""));
  change.values.resize(static_cast<size_t>(rows * change.cols));
  for (int64_t row = 0; row < rows; ++row)
    read_row(*tensor, row, change, change.values.data() + row * change.cols);
  if (mean) change.values = mean_of_rows(change.values, change.cols);
}

}  // namespace

void read_values(std::span<Intervention> changes, const std::filesystem::path& file, bool mean) {
  const SafetensorsFile contents = SafetensorsFile::open(file);
  for (Intervention& change : changes) read_change(change, contents, mean);
}

Tap intervening(std::vector<Intervention> changes) {
  return [shared = std::make_shared<const std::vector<Intervention>>(std::move(changes))](
             const Activation& a) {
    for (const Intervention& change : *shared)
      if (change.at.is(a)) change_rows(change, a);
  };
}

}  // namespace lapidary
