#include "lapidary/error.h"

#include <cstdio>
#include <cstdlib>

#include "lapidary/log.h"
#include "lapidary/progress.h"

namespace lapidary {

Error::Error(ErrorKind kind, const std::string& message, std::string hint)
    : std::runtime_error(message), kind_(kind), hint_(std::move(hint)) {}

void Watch::throw_if_stopped() const {
  if (stop.stop_requested()) throw Error(ErrorKind::kInterrupted, "interrupted");
}

namespace detail {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, message.c_str());
  std::abort();
}

}  // namespace detail

namespace {
LogSink& sink() {
  static LogSink instance;
  return instance;
}
}  // namespace

void set_log_sink(LogSink new_sink) {
  sink() = std::move(new_sink);
}

void log(LogLevel level, std::string_view message) {
  if (sink()) sink()(level, message);
}

}  // namespace lapidary
