#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"

namespace lapidary {
namespace {

TEST(ThreadPool, EveryTaskRunsOnceForAnyCountAndThreads) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 2, 3, 6, 8, 1000}) {
      std::vector<int> hits(static_cast<size_t>(count), 0);
      pool.parallel_for(count, [&](int64_t first, int64_t last, int thread) {
        EXPECT_LT(thread, threads);
        for (int64_t i = first; i < last; ++i) ++hits[static_cast<size_t>(i)];
      });
      EXPECT_EQ(hits, std::vector<int>(static_cast<size_t>(count), 1)) << threads;
    }
  }
}

TEST(ThreadPool, ManyShortLoopsSeeEachOthersWrites) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 5000; ++round)
    pool.parallel_for(64, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i) values[static_cast<size_t>(i)] += i;
    });
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 5000 * (63 * 64 / 2));
}

TEST(ThreadPool, TheOthersTakeWhatASlowThreadLeaves) {
  ThreadPool pool(2);
  constexpr int64_t kTasks = 16;
  std::atomic<int64_t> done{0};
  bool all_others_done = false;
  pool.parallel_for(kTasks, [&](int64_t first, int64_t last, int) {
    if (first == 0) {
      EXPECT_LE(last, kTasks / 4);  // a slow thread holds up a small part
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (done < kTasks - last && std::chrono::steady_clock::now() < end)
        std::this_thread::yield();
      all_others_done = done == kTasks - last;
    }
    done += last - first;
  });
  EXPECT_TRUE(all_others_done);
}

TEST(ThreadPool, OnlyTheThreadsInUseWork) {
  ThreadPool pool(4);
  for (int used : {2, 1, 4}) {
    pool.use(used);
    std::atomic<int> highest{0}, tasks{0};
    for (int round = 0; round < 20; ++round)
      pool.parallel_for(64, [&](int64_t first, int64_t last, int thread) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));  // time to wake up
        int seen = highest;
        while (seen < thread && !highest.compare_exchange_weak(seen, thread)) {
        }
        tasks += static_cast<int>(last - first);
      });
    EXPECT_LT(highest, used);
    EXPECT_EQ(tasks, 20 * 64);
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they map terabytes

// As `ulimit -v` does: the stacks of a few threads are all that fits.
TEST(ThreadPool, MoreThanTheSystemGivesIsAnError) {
  const auto ask = [] {
    const rlimit limit = {size_t{1} << 30, size_t{1} << 30};
    setrlimit(RLIMIT_AS, &limit);
    try {
      ThreadPool pool(4000);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s", error.what());
      std::_Exit(error.kind() == ErrorKind::kResource ? 0 : 1);
    }
    std::_Exit(2);
  };
  EXPECT_EXIT(ask(), ::testing::ExitedWithCode(0), "4000 threads: the system gives no more than");
}

#endif

TEST(ThreadPool, CallersFromSeveralThreadsQueue) {
  ThreadPool pool(2);
  std::vector<int64_t> sums(3, 0);
  std::vector<std::thread> callers;
  for (size_t c = 0; c < sums.size(); ++c)
    callers.emplace_back([&, c] {
      for (int round = 0; round < 200; ++round) {
        std::vector<int64_t> part(2, 0);
        pool.parallel_for(100, [&](int64_t first, int64_t last, int thread) {
          for (int64_t i = first; i < last; ++i) part[static_cast<size_t>(thread)] += i;
        });
        sums[c] += part[0] + part[1];
      }
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sums, std::vector<int64_t>(3, 200 * 4950));
}

}  // namespace
}  // namespace lapidary
