// Names out of files, made fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace lapidary {

// `text` on one line: control characters as \xNN, cut after 120 bytes. A file may hold any name.
std::string printable(std::string_view text);

}  // namespace lapidary
