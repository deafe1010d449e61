#include "io/printable.h"

#include <fmt/format.h>

namespace lapidary {

std::string printable(std::string_view text) {
  constexpr size_t kMaxShown = 120;
  const bool cut = text.size() > kMaxShown;
  std::string shown;
  for (const char c : text.substr(0, kMaxShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      shown += fmt::format("\\x{:02x}", byte);
    else
      shown += c;
  }
  return cut ? shown + "..." : shown;
}

}  // namespace lapidary
