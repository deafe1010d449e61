// MLX's "affine" format: groups of codes of a few bits with one scale and one bias each,
// weight = scale * code + bias. Reading it is the kernels' work (WeightMatrix); this writes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace lapidary {

struct AffineFormat {
  int bits = 4;                // 2, 3, 4, 5, 6 or 8
  int group = 64;              // 32, 64 or 128
  DType dtype = DType::kBF16;  // of scales and biases: kBF16, kF16 or kF32

  int64_t code_bytes(int64_t values) const { return values * bits / 8; }
  // Of the scales, and again of the biases.
  int64_t scale_bytes(int64_t values) const { return values / group * size_of(dtype); }
};

// Where a run of groups is written: code_bytes, scale_bytes and scale_bytes long, at any address.
struct AffineTarget {
  std::byte* codes;
  std::byte* scales;
  std::byte* biases;
};

// Encodes whole groups, bit for bit as mlx.core.quantize does for an array of `format.dtype`: the
// codes are chosen with the unrounded f32 scale and bias, which are rounded only to be stored. The
// values are taken as they are; round them to the dtype first where MLX would have held them so.
// They must be finite.
void affine_encode(std::span<const float> values, const AffineFormat& format,
                   const AffineTarget& target);

// The largest root mean square error of a group that affine_encode makes, as a share of the group's
// range with zero in it.
double affine_error_share(const AffineFormat& format);

// The same format with other choices: scale, bias and codes of a group are searched for the least
// sum of importance * error^2, with scale and bias rounded before the codes are chosen. Neither
// that sum nor affine_error_share is ever above what affine_encode's choice has. `importance` has a
// positive weight for each value; takes about 20 times as long.
void affine_search(std::span<const float> values, std::span<const float> importance,
                   const AffineFormat& format, const AffineTarget& target);

}  // namespace lapidary
