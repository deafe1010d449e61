#include "base/system.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <sys/resource.h>

namespace lapidary {

namespace {

// One number from a file of /sys or /proc; `absent` when it is missing or says "max".
int64_t read_number(const char* path, int64_t absent) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? value : absent;
}

// The value in bytes of a "Name:  123 kB" line of /proc/meminfo or /proc/self/status.
int64_t read_kib_line(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    int64_t kib = 0;
    if (word == name + ":" && file >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace

int64_t peak_rss_bytes_of(int process) {
  return read_kib_line(("/proc/" + std::to_string(process) + "/status").c_str(), "VmHWM");
}

int64_t rss_bytes() {
  return read_kib_line("/proc/self/status", "VmRSS");
}

int64_t peak_rss_bytes() {
  const int64_t peak = read_kib_line("/proc/self/status", "VmHWM");
  if (peak > 0) return peak;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

int64_t available_memory_bytes() {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  int64_t available = read_kib_line("/proc/meminfo", "MemAvailable");
  if (available == 0) available = kNone;
  const int64_t v2_limit = read_number("/sys/fs/cgroup/memory.max", kNone);
  if (v2_limit != kNone)
    return std::min(available, v2_limit - read_number("/sys/fs/cgroup/memory.current", 0));
  const int64_t v1_limit = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", kNone);
  if (v1_limit < kNone / 2)
    return std::min(available,
                    v1_limit - read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", 0));
  return available;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace lapidary
