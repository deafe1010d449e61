#include "base/cpu_budget.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <iterator>
#include <sched.h>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "lapidary/log.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

std::atomic<int> preferred_threads{0};

double quota_v2(const fs::path& group) {
  std::ifstream file(group / "cpu.max");
  double quota = 0, period = 0;  // "max 100000" leaves both 0
  if (file >> quota >> period && period > 0) return quota / period;
  return 0;
}

double quota_v1(const fs::path& group) {
  double quota = 0, period = 0;
  std::ifstream(group / "cpu.cfs_quota_us") >> quota;  // -1: none
  std::ifstream(group / "cpu.cfs_period_us") >> period;
  return quota > 0 && period > 0 ? quota / period : 0;
}

// The least of read(group) that is a limit, from `path` below `root` up to `root` itself. In a
// container the path may name a group of the host, which is not there to be read; the root is.
template <class Read>
double least_limit(const fs::path& root, const fs::path& path, Read read) {
  double least = 0;
  for (fs::path part = path.relative_path();; part = part.parent_path()) {
    const double limit = read(part.empty() ? root : root / part);
    if (limit > 0 && (least == 0 || limit < least)) least = limit;
    if (part.empty()) return least;
  }
}

std::set<int> allowed_cpus() {
  std::set<int> cpus;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &allowed)) cpus.insert(cpu);
  if (cpus.empty())  // more CPUs than a cpu_set_t has
    for (int cpu = 0; cpu < static_cast<int>(std::thread::hardware_concurrency()); ++cpu)
      cpus.insert(cpu);
  return cpus;
}

int physical_cores(const std::set<int>& cpus) {
  std::set<std::pair<int, int>> cores;
  for (const int cpu : cpus) {
    const fs::path folder = fmt::format("/sys/devices/system/cpu/cpu{}/topology", cpu);
    int package = 0;
    int core = cpu;  // no topology: count every CPU as a core
    std::ifstream(folder / "physical_package_id") >> package;
    std::ifstream core_file(folder / "core_id");
    if (!(core_file >> core)) core = cpu;
    cores.insert({package, core});
  }
  return std::max(1, static_cast<int>(cores.size()));
}

}  // namespace

double read_cgroup_cores(const fs::path& root, const std::string& self) {
  double least = 0;
  const auto note = [&](double limit) {
    if (limit > 0 && (least == 0 || limit < least)) least = limit;
  };
  std::istringstream lines(self);
  for (std::string line; std::getline(lines, line);) {  // ID:CONTROLLERS:PATH
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const fs::path path = line.substr(second + 1);
    if (controllers == ",,")
      note(least_limit(root, path, quota_v2));
    else if (controllers.find(",cpu,") != std::string::npos)
      note(least_limit(root / "cpu", path, quota_v1));
  }
  return least;
}

int CpuBudget::threads() const {
  if (preferred > 0) return std::min(preferred, allowed_cpus);
  const double limit = cgroup_cores > 0 ? std::floor(cgroup_cores) : physical_cores;
  return std::max(1, static_cast<int>(std::min<double>(physical_cores, limit)));
}

void warn_of_threads(int threads, const CpuBudget& budget) {
  if (threads > budget.allowed_cpus)
    log(LogLevel::kWarning,
        fmt::format("{} threads on {} CPUs wait for each other", threads, budget.allowed_cpus));
}

std::string CpuBudget::explanation() const {
  std::string text =
      fmt::format("{} allowed CPUs, {} physical cores", allowed_cpus, physical_cores);
  if (cgroup_cores > 0) text += fmt::format(", {:g} cores by the control group", cgroup_cores);
  if (preferred > 0) text += fmt::format(", {} threads preferred", preferred);
  return text;
}

CpuBudget cpu_budget() {
  std::ifstream file("/proc/self/cgroup");
  const std::string self{std::istreambuf_iterator<char>(file), {}};
  const std::set<int> cpus = allowed_cpus();
  return {.allowed_cpus = std::max(1, static_cast<int>(cpus.size())),
          .physical_cores = physical_cores(cpus),
          .cgroup_cores = read_cgroup_cores("/sys/fs/cgroup", self),
          .preferred = preferred_threads};
}

void prefer_threads(int threads) {
  preferred_threads = threads;
}

}  // namespace lapidary
