#include "quantize/encoded_matrix.h"

#include <array>

namespace lapidary {

EncodedMatrix::EncodedMatrix(const RowSource& source, const RowEncoder& encoder,
                             const Storage& storage, ThreadPool& pool)
    : parts_(encoder.parts()) {
  for (size_t part = 0; part < parts_.size(); ++part)
    parts_[part].resize(static_cast<size_t>(source.rows * encoder.row_bytes(part, source.cols)));
  pool.parallel_for(source.rows, [&](int64_t first, int64_t last, int) {
    std::vector<float> values(static_cast<size_t>(source.cols));
    for (int64_t row = first; row < last; ++row) {
      source.fill(row, values.data());
      std::array<std::byte*, 3> to = {};
      for (size_t part = 0; part < parts_.size(); ++part)
        to[part] = parts_[part].data() + row * encoder.row_bytes(part, source.cols);
      encoder.encode(values, to.data());
    }
  });
  matrix_ = {.rows = source.rows,
             .cols = source.cols,
             .dtype = storage.dtype,
             .data = parts_[0].data(),
             .bits = storage.bits,
             .group = storage.group};
  if (!storage.affine()) return;
  matrix_.format = WeightFormat::kAffine;
  matrix_.scales = parts_[1].data();
  matrix_.biases = parts_[2].data();
}

}  // namespace lapidary
