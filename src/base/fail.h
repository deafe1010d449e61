// Shorthand for throwing Error with a formatted message.
#pragma once

#include <utility>

#include <fmt/format.h>

#include "lapidary/error.h"

namespace lapidary {

// fail("{}: {} tensors, expected {}", path, n, m): an Error of kind kInput.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::kInput, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::kUsage, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_resource(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorKind::kResource, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace lapidary
