#include "io/patience.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include <fmt/format.h>

#include "lapidary/error.h"
#include "lapidary/log.h"

namespace lapidary {

namespace {

constexpr double kLongestWaitSeconds = 300;

std::string reason(const HttpAnswer& answer) {
  if (answer.status != 0 && !answer.ok()) return fmt::format("HTTP {}", answer.status);
  return answer.broken.empty() ? "the answer ended early" : answer.broken;
}

}  // namespace

bool Patience::again(const HttpAnswer& answer, const std::string& what) {
  const double wait = std::max(static_cast<double>(answer.retry_after),
                               access_.first_wait_seconds * (1 << attempts_));
  if (++attempts_ >= access_.attempts || wait > kLongestWaitSeconds) return false;
  log(LogLevel::kInfo, fmt::format("{}: {}; trying again in {:.3g} s", what, reason(answer), wait));
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait);
  while (std::chrono::steady_clock::now() < end) {
    if (stopped_()) throw Error(ErrorKind::kInterrupted, "interrupted");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace lapidary
