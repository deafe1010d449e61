#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <mutex>
#include <sched.h>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lapidary/error.h"

namespace lapidary {

namespace {

// A pause is 40-140 cycles on x86, so this spins for 20-60 microseconds before sleeping.
constexpr int kSpins = 1024;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`, and returns what it is then.
template <class T>
T wait_for_change(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    const T now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause_cpu();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

std::pair<int64_t, int64_t> share_of(int64_t count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

}  // namespace

struct ThreadPool::State {
  std::mutex one_loop_at_a_time;
  std::atomic<uint32_t> loop{0};  // counts loops; a change tells the workers to look
  std::atomic<int> running{0};    // workers that have not finished the present loop
  std::atomic<bool> quit{false};
  int64_t count = 0;
  Share share = nullptr;
  void* context = nullptr;
  int threads = 1;
  std::vector<std::thread> workers;

  void work(int thread) {
    uint32_t seen = 0;
    while (true) {
      seen = wait_for_change(loop, seen);
      if (quit.load(std::memory_order_relaxed)) return;
      const auto [first, last] = share_of(count, thread, threads);
      if (first < last) share(context, first, last, thread);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  LAPIDARY_CHECK(threads >= 1, "a pool has at least the caller");
  state_->threads = threads;
  for (int i = 1; i < threads; ++i)
    state_->workers.emplace_back([state = state_.get(), i] { state->work(i); });
}

ThreadPool::~ThreadPool() {
  state_->quit.store(true, std::memory_order_relaxed);
  state_->loop.fetch_add(1, std::memory_order_release);
  state_->loop.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const {
  return state_->threads;
}

void ThreadPool::run(int64_t count, Share share, void* context) {
  State& s = *state_;
  const int threads = s.threads;
  if (threads == 1 || count <= 1) {
    if (count > 0) share(context, 0, count, 0);
    return;
  }
  const std::lock_guard lock(s.one_loop_at_a_time);
  s.count = count;
  s.share = share;
  s.context = context;
  s.running.store(threads - 1, std::memory_order_relaxed);
  s.loop.fetch_add(1, std::memory_order_release);
  s.loop.notify_all();
  const auto [first, last] = share_of(count, 0, threads);
  if (first < last) share(context, first, last, 0);
  for (int left = s.running.load(std::memory_order_acquire); left != 0;)
    left = wait_for_change(s.running, left);
}

namespace {

// CPU time the control group allows, in cores; a large number when it sets no limit.
double cgroup_cores() {
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (v2 >> quota >> period && quota != "max" && period > 0) return std::stod(quota) / period;
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  double q = -1;
  if (v1_quota >> q && v1_period >> period && q > 0 && period > 0) return q / period;
  return 1e9;
}

// Physical cores among the CPUs that this process may run on.
int usable_physical_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::set<std::pair<int, int>> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    int package = 0;
    int core = cpu;  // no topology: count every CPU as a core
    std::ifstream(folder + "physical_package_id") >> package;
    std::ifstream core_file(folder + "core_id");
    if (!(core_file >> core)) core = cpu;
    cores.insert({package, core});
  }
  return std::max<int>(1, static_cast<int>(cores.size()));
}

}  // namespace

int default_thread_count() {
  const double limit = std::max(1.0, std::floor(cgroup_cores()));
  return static_cast<int>(std::min<double>(usable_physical_cores(), limit));
}

}  // namespace lapidary
