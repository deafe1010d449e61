#include "generate/storage.h"

#include <algorithm>

#include "base/fail.h"

namespace lapidary {

void check_affine_options(int bits, int group_size) {
  const auto one_of = [](int value, std::initializer_list<int> allowed) {
    return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
  };
  if (!one_of(bits, {2, 3, 4, 5, 6, 8}))
    fail_usage("bits: {} given, expected 2, 3, 4, 5, 6 or 8", bits);
  if (!one_of(group_size, {32, 64, 128}))
    fail_usage("group-size: {} given, expected 32, 64 or 128", group_size);
}

DType dtype_option(const std::string& name) {
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  if (name == "f32") return DType::kF32;
  fail_usage("dtype: '{}' given, expected bf16, f16 or f32", name);
}

std::string module_path(std::string_view tensor) {
  return std::string(tensor.substr(0, tensor.rfind(".weight")));
}

RowEncoder encoder_of(const Storage& storage) {
  return storage.affine() ? affine_encoder({storage.bits, storage.group, storage.dtype})
                          : dense_encoder(storage.dtype);
}

std::vector<TensorDeclaration> declare_matrix(const std::string& name, int64_t rows, int64_t cols,
                                              const Storage& storage) {
  if (!storage.affine()) return {{name, storage.dtype, {rows, cols}}};
  const std::string path = module_path(name);
  const int64_t groups = cols / storage.group;
  return {{name, DType::kU32, {rows, cols * storage.bits / 32}},
          {path + ".scales", storage.dtype, {rows, groups}},
          {path + ".biases", storage.dtype, {rows, groups}}};
}

}  // namespace lapidary
