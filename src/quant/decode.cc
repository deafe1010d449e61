#include "quant/decode.h"

#include "base/fail.h"

namespace lapidary {

void decode_blocks(WeightFormat format, std::span<const std::byte> blocks, float* values) {
  const BlockFormat& sizes = block_format(format);
  const auto bytes = static_cast<size_t>(sizes.bytes);
  LAPIDARY_CHECK(blocks.size() % bytes == 0,
                 fmt::format("{} bytes of {}", blocks.size(), sizes.name));
  const auto cols = static_cast<int64_t>(blocks.size() / bytes) * sizes.cols;
  supported_kernels().front()->dequantize_row(block_matrix(format, 1, cols, blocks.data()), 0,
                                              values);
}

}  // namespace lapidary
