// How a tensor is stored in a model folder: dense, or as MLX quantises it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "quant/row_encoder.h"

namespace lapidary {

struct Storage {
  int bits = 0;                // 0: dense; else MLX affine 2, 3, 4, 5, 6 or 8
  int group = 0;               // of affine: 32, 64 or 128
  DType dtype = DType::kBF16;  // of dense values, or of scales and biases

  bool affine() const { return bits != 0; }
  friend bool operator==(const Storage&, const Storage&) = default;
};

// Throws Error{kUsage}.
void check_affine_options(int bits, int group_size);

// A value of --dtype: "bf16", "f16" or "f32". Throws Error{kUsage}.
DType dtype_option(const std::string& name);

// "a.b" of the tensor "a.b.weight".
std::string module_path(std::string_view tensor);

RowEncoder encoder_of(const Storage& storage);

// The tensors that the matrix `name` ("a.b.weight") becomes, in the order of the encoder's parts.
std::vector<TensorDeclaration> declare_matrix(const std::string& name, int64_t rows, int64_t cols,
                                              const Storage& storage);

}  // namespace lapidary
