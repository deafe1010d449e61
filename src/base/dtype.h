// Element types of stored tensors, under the names that safetensors files use.
#pragma once

#include <cstdint>
#include <string_view>

namespace lapidary {

enum class DType : uint8_t { kF32, kF16, kBF16, kU8, kI32, kU32, kI64 };

constexpr int64_t size_of(DType type) {
  switch (type) {
    case DType::kU8:
      return 1;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kI64:
      return 8;
  }
  return 0;
}

constexpr std::string_view name_of(DType type) {
  switch (type) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kU8:
      return "U8";
    case DType::kI32:
      return "I32";
    case DType::kU32:
      return "U32";
    case DType::kI64:
      return "I64";
  }
  return "?";
}

// PyTorch's name for a type of weights.
constexpr const char* torch_name(DType type) {
  return type == DType::kBF16 ? "bfloat16" : type == DType::kF16 ? "float16" : "float32";
}

constexpr bool is_float(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

}  // namespace lapidary
