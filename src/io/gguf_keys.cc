#include "io/gguf_keys.h"

#include <cmath>
#include <type_traits>
#include <utility>

#include "base/fail.h"
#include "io/printable.h"

namespace lapidary {

namespace {

// In the order of the format's numbers.
constexpr const char* kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};

std::string type_of(const GgufValue& value) {
  const auto* array = std::get_if<GgufArray>(&value);
  return array == nullptr ? kTypeNames[value.index()]
                          : fmt::format("array of {}", kTypeNames[array->index()]);
}

template <class T>
constexpr bool kIsWhole = std::is_integral_v<T> && !std::is_same_v<T, bool>;

}  // namespace

void GgufKeys::fail_key(std::string_view key, const std::string& problem) const {
  fail("{}: key '{}': {}", where_, printable(std::string(key)), problem);
}

const GgufValue& GgufKeys::value(std::string_view key) const {
  const GgufValue* found = contents_->find(key);
  if (found == nullptr) fail_key(key, "missing");
  return *found;
}

int64_t GgufKeys::integer(std::string_view key, int64_t least, int64_t most) const {
  return std::visit(
      [&](const auto& found) -> int64_t {
        using T = std::decay_t<decltype(found)>;
        if constexpr (kIsWhole<T>) {
          if (std::cmp_less(found, least) || std::cmp_greater(found, most))
            fail_key(key, fmt::format("expected {} to {}, found {}", least, most, found));
          return static_cast<int64_t>(found);
        } else {
          fail_key(key, fmt::format("expected an integer, found {}", type_of(value(key))));
        }
      },
      value(key));
}

std::optional<int64_t> GgufKeys::find_integer(std::string_view key, int64_t least,
                                              int64_t most) const {
  return has(key) ? std::optional(integer(key, least, most)) : std::nullopt;
}

std::optional<double> GgufKeys::find_number(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return std::visit(
      [&](const auto& found) -> double {
        using T = std::decay_t<decltype(found)>;
        if constexpr (kIsWhole<T> || std::is_floating_point_v<T>) {
          const auto number = static_cast<double>(found);
          if (!std::isfinite(number))
            fail_key(key, fmt::format("expected a number, found {}", number));
          return number;
        } else {
          fail_key(key, fmt::format("expected a number, found {}", type_of(value(key))));
        }
      },
      value(key));
}

const std::string& GgufKeys::string(std::string_view key) const {
  const auto* text = std::get_if<std::string>(&value(key));
  if (text == nullptr)
    fail_key(key, fmt::format("expected a string, found {}", type_of(value(key))));
  return *text;
}

std::optional<bool> GgufKeys::find_boolean(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  const auto* flag = std::get_if<bool>(&value(key));
  if (flag == nullptr) fail_key(key, fmt::format("expected a bool, found {}", type_of(value(key))));
  return *flag;
}

template <class T>
const std::vector<T>& GgufKeys::list(std::string_view key) const {
  const auto* array = std::get_if<GgufArray>(&value(key));
  const auto* found = array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
  if (found == nullptr)
    fail_key(key, fmt::format("expected {}, found {}", type_of(GgufArray(std::vector<T>())),
                              type_of(value(key))));
  return *found;
}
template const std::vector<std::string>& GgufKeys::list(std::string_view) const;
template const std::vector<float>& GgufKeys::list(std::string_view) const;
template const std::vector<int32_t>& GgufKeys::list(std::string_view) const;

}  // namespace lapidary
