// How the rows of a matrix are stored, whatever the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "quant/affine.h"

namespace lapidary {

struct RowEncoder {
  std::string name;          // "BF16", "affine 4-bit, groups of 64", "Q4_K"
  int64_t block_values = 1;  // that share scales; divides the width of a matrix
  // Bytes of a block in each part of the row: affine rows have codes, scales and biases, which are
  // tensors of their own; others have one part.
  std::vector<int64_t> block_bytes;
  float limit = 0;  // magnitudes from here on cannot be stored, nor can what is no number
  // The largest root mean square error of a block, as a share of its range with zero in it. Follows
  // from the steps of the codes and the rounding of what is stored beside them.
  double error_share = 0;
  // Whole blocks to an address for each part.
  std::function<void(std::span<const float>, std::byte* const* parts)> encode;

  size_t parts() const { return block_bytes.size(); }
  int64_t row_bytes(size_t part, int64_t cols) const {
    return cols / block_values * block_bytes[part];
  }
  bool fits(std::span<const float> values) const;
};

RowEncoder dense_encoder(DType dtype);  // kF32, kF16 or kBF16
RowEncoder affine_encoder(const AffineFormat& format);
// The same format by affine_search; `importance` of each column.
RowEncoder affine_search_encoder(const AffineFormat& format, std::vector<float> importance);
RowEncoder q8_0_encoder();
RowEncoder q5_0_encoder();
RowEncoder q4_0_encoder();
RowEncoder q4_k_encoder();
RowEncoder q6_k_encoder();

}  // namespace lapidary
