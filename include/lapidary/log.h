// room: base
// Where the library's remarks go. The library writes nothing by itself: without a sink, remarks
// are dropped. The program installs one that prints to stderr.
#pragma once

#include <functional>
#include <string_view>

namespace lapidary {

enum class LogLevel { kDebug, kInfo, kWarning };

using LogSink = std::function<void(LogLevel, std::string_view)>;

// Replaces the sink. Call before other threads use the library.
void set_log_sink(LogSink sink);

void log(LogLevel level, std::string_view message);

}  // namespace lapidary
