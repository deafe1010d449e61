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
  const int64_t width = tensor.shape.back();
  for (int64_t i = 0; i < change.cols; ++i)
    out[i] = float_at(tensor.bytes.data(), tensor.dtype, row * width + change.first_col + i);
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
  const auto& shape = tensor->shape;
  if (shape.empty() || shape.size() > 2 || shape.back() != change.width || shape.front() == 0)
    complain(fmt::format("shape {}, expected [tokens, {}] or [{}]", shape_string(shape),
                         change.width, change.width));
  const int64_t rows = shape.size() == 2 ? shape[0] : 1;
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
