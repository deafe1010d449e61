#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "lapidary/error.h"

#include "base/fail.h"

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

constexpr uint32_t kMostShares = 16;  // that a thread's part of a loop is divided into

}  // namespace

// The loop at hand. `ticket` is the loop's number and, in its low half, the next task that nobody
// has taken. Whoever moves the ticket from n to n + m has taken tasks n ... n + m - 1. A loop that
// is being set up has a ticket with kClosed, so a thread that still holds the last loop's ticket
// can't take a task by what it reads of the next.
struct ThreadPool::State {
  std::mutex one_loop_at_a_time;
  std::atomic<uint64_t> ticket{kClosed};
  std::atomic<uint32_t> count{0};
  std::atomic<uint32_t> least_share{0};
  std::atomic<Share> share{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<uint32_t> loop{0};  // its number; a change tells the workers to look
  std::atomic<uint32_t> done{0};  // tasks of this loop that are finished
  std::atomic<bool> quit{false};
  std::atomic<int> used{1};  // threads that may take shares
  std::vector<std::thread> workers;

  static constexpr uint32_t kClosed = UINT32_MAX;
  static uint64_t make_ticket(uint32_t loop, uint32_t next) { return uint64_t{loop} << 32 | next; }

  // Runs shares of loop `number` until none is left. A share is half a thread's part of what is
  // left (after guided self-scheduling, Polychronopoulos and Kuck 1987): products read long runs of
  // rows faster than short ones, and small shares at the end make up for a thread that was slower.
  void take_shares(uint32_t number, int thread) {
    uint64_t mine = ticket.load(std::memory_order_acquire);
    while (mine >> 32 == number) {
      const auto first = static_cast<uint32_t>(mine);
      const uint32_t tasks = count.load(std::memory_order_acquire);
      if (first >= tasks) return;  // or closed
      const uint32_t left = tasks - first;
      const uint32_t last =
          first + std::min(left, std::max(least_share.load(std::memory_order_acquire),
                                          left / (2 * static_cast<uint32_t>(used))));
      const Share run_share = share.load(std::memory_order_acquire);
      void* const argument = context.load(std::memory_order_acquire);
      if (!ticket.compare_exchange_weak(mine, make_ticket(number, last), std::memory_order_acq_rel,
                                        std::memory_order_acquire))
        continue;
      run_share(argument, first, last, thread);
      const uint32_t finished = last - first;
      if (done.fetch_add(finished, std::memory_order_acq_rel) + finished == tasks)
        done.notify_one();
      mine = ticket.load(std::memory_order_acquire);
    }
  }

  void work(int thread) {
    uint32_t seen = 0;
    while (true) {
      seen = wait_for_change(loop, seen);
      if (quit.load(std::memory_order_relaxed)) return;
      if (thread < used.load(std::memory_order_relaxed)) take_shares(seen, thread);
    }
  }

  void end() {
    quit.store(true, std::memory_order_relaxed);
    loop.fetch_add(1, std::memory_order_release);
    loop.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  void start(uint32_t tasks, Share run_share, void* argument) {
    const uint32_t number = loop.load(std::memory_order_relaxed) + 1;
    ticket.store(make_ticket(number, kClosed), std::memory_order_relaxed);
    count.store(tasks, std::memory_order_release);
    least_share.store(std::max(1u, tasks / (static_cast<uint32_t>(used) * kMostShares)),
                      std::memory_order_release);
    share.store(run_share, std::memory_order_release);
    context.store(argument, std::memory_order_release);
    done.store(0, std::memory_order_release);
    ticket.store(make_ticket(number, 0), std::memory_order_release);
    loop.store(number, std::memory_order_release);
    loop.notify_all();
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  LAPIDARY_CHECK(threads >= 1, "a pool has at least the caller");
  state_->used = threads;
  try {
    for (int i = 1; i < threads; ++i)
      state_->workers.emplace_back([state = state_.get(), i] { state->work(i); });
  } catch (const std::system_error& error) {  // a limit of the system's
    const size_t made = state_->workers.size() + 1;
    state_->end();
    fail_resource("{} threads: the system gives no more than {}: {}", threads, made,
                  error.code().message());
  }
}

ThreadPool::~ThreadPool() {
  state_->end();
}

int ThreadPool::threads() const {
  return static_cast<int>(state_->workers.size()) + 1;
}

void ThreadPool::use(int count) {
  LAPIDARY_CHECK(count >= 1 && count <= threads(), "the pool has that many threads");
  const std::lock_guard lock(state_->one_loop_at_a_time);
  state_->used = count;
}

void ThreadPool::run(int64_t count, Share share, void* context) {
  State& s = *state_;
  if (s.used == 1 || count <= 1) {
    if (count > 0) share(context, 0, count, 0);
    return;
  }
  LAPIDARY_CHECK(count <= INT32_MAX, "more tasks than a loop can have");
  const std::lock_guard lock(s.one_loop_at_a_time);
  const auto tasks = static_cast<uint32_t>(count);
  s.start(tasks, share, context);
  s.take_shares(s.loop.load(std::memory_order_relaxed), 0);
  for (uint32_t done = s.done.load(std::memory_order_acquire); done != tasks;)
    done = wait_for_change(s.done, done);
}

}  // namespace lapidary
