// room: kernels
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lapidary {

// How a K/V cache stores keys and values. kQ8 and kQ4 are codes of 8 and 4 bits with a scale and a
// bias for each 32 values: 9 and 5 bits a value.
enum class KvType : uint8_t { kF32, kBF16, kQ8, kQ4 };
constexpr KvType kKvTypes[] = {KvType::kF32, KvType::kBF16, KvType::kQ8, KvType::kQ4};

constexpr std::string_view name_of(KvType type) {
  constexpr std::string_view kNames[] = {"f32", "bf16", "q8", "q4"};
  return kNames[static_cast<size_t>(type)];
}

constexpr std::optional<KvType> kv_type_named(std::string_view name) {
  for (const KvType type : kKvTypes)
    if (name == name_of(type)) return type;
  return std::nullopt;
}

}  // namespace lapidary
