#include "quant/row_encoder.h"

#include <cmath>

#include "base/fail.h"
#include "base/float16.h"
#include "quant/q4_0.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"

namespace lapidary {

namespace {

constexpr float kF16Limit = 65520;  // rounds to the power of two that f16 does not have

float limit_of(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return kF16Limit;
    case DType::kBF16:
      return 0x1.ffp127f;
    default:
      return INFINITY;
  }
}

// Half a unit in the last place, as a share of the value.
double rounding_of(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    default:
      return 0x1p-24;
  }
}

template <void (*encode_blocks)(std::span<const float>, std::byte*)>
RowEncoder block_encoder(const char* name, int64_t values, int64_t bytes, float limit,
                         double error_share) {
  return {.name = name,
          .block_values = values,
          .block_bytes = {bytes},
          .limit = limit,
          .error_share = error_share,
          .encode = [](std::span<const float> row, std::byte* const* parts) {
            encode_blocks(row, parts[0]);
          }};
}

}  // namespace

bool RowEncoder::fits(std::span<const float> values) const {
  bool all = true;  // without a way out of the loop, which then is a few vector instructions
  for (const float x : values) all &= std::abs(x) < limit;
  return all;
}

RowEncoder dense_encoder(DType dtype) {
  return {.name = std::string(name_of(dtype)),
          .block_values = 1,
          .block_bytes = {size_of(dtype)},
          .limit = limit_of(dtype),
          .error_share = rounding_of(dtype),
          .encode = [dtype](std::span<const float> row, std::byte* const* parts) {
            store_floats(row, dtype, parts[0]);
          }};
}

RowEncoder affine_encoder(const AffineFormat& format) {
  const int64_t element = size_of(format.dtype);
  return {.name = fmt::format("affine {}-bit, groups of {}", format.bits, format.group),
          .block_values = format.group,
          .block_bytes = {format.code_bytes(format.group), element, element},
          .limit = std::min(limit_of(format.dtype), 0x1p125f),
          .error_share = affine_error_share(format),
          .encode = [format](std::span<const float> row, std::byte* const* parts) {
            affine_encode(row, format, {parts[0], parts[1], parts[2]});
          }};
}

RowEncoder affine_search_encoder(const AffineFormat& format, std::vector<float> importance) {
  RowEncoder encoder = affine_encoder(format);
  encoder.encode = [format, importance = std::move(importance)](std::span<const float> row,
                                                                std::byte* const* parts) {
    affine_search(row, importance, format, {parts[0], parts[1], parts[2]});
  };
  return encoder;
}

// Half a step of largest / 127, and d is f16: 2^-11 of it.
RowEncoder q8_0_encoder() {
  return block_encoder<q8_0_encode>("Q8_0", kQ8_0Block, kQ8_0BlockBytes, 127 * kF16Limit,
                                    0.5 / 127 + 0x1p-11);
}

// A step of largest / 8 at the end that has no code, and d is f16.
RowEncoder q4_0_encoder() {
  return block_encoder<q4_0_encode>("Q4_0", kQ4_0Block, kQ4_0BlockBytes, 8 * kF16Limit,
                                    1.0 / 8 + 0x1p-11);
}

// The same with largest / 16.
RowEncoder q5_0_encoder() {
  return block_encoder<q5_0_encode>("Q5_0", kQ5_0Block, kQ5_0BlockBytes, 16 * kF16Limit,
                                    1.0 / 16 + 0x1p-11);
}

// Half a step of range / 15; scale and minimum are rounded to 63rds of the block's largest, and the
// units of both are f16. Searching makes no sum of squares larger.
RowEncoder q4_k_encoder() {
  return block_encoder<q4_k_encode>("Q4_K", kQ4KBlock, kQ4KBlockBytes, 32 * kF16Limit,
                                    0.5 / 15 + 1.0 / 63 + 0x1p-10);
}

// A step of largest / 32 at the end that has no code; scales are rounded to 128ths of the block's
// largest, whose unit is f16.
RowEncoder q6_k_encoder() {
  return block_encoder<q6_k_encode>("Q6_K", kQ6KBlock, kQ6KBlockBytes, 32 * kF16Limit,
                                    1.0 / 32 + 0.5 / 128 + 0x1p-11);
}

}  // namespace lapidary
