// One pool of threads that runs the same loop together.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace lapidary {

// parallel_for hands a range of tasks out in contiguous shares, large ones first, and returns when
// all are done; the caller is one of the threads. Whoever is free takes the next share, and nobody
// waits for a thread that has taken none: on a machine with other work, a core that is away costs
// its share and not the loop. Threads that wait spin for some tens of microseconds, then sleep: a
// decode step has hundreds of these loops.
//
// Which thread runs a task never changes what the task computes, so results do not depend on the
// thread count. One loop at a time: calls from several threads queue up. Tasks must not throw.
class ThreadPool {
 public:
  // threads >= 1, the caller included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Lets only the first `count` threads work, the caller included, until the next call.
  void use(int count);

  // Calls fn(first, last, thread) for consecutive shares that make up [0, count), count < 2^31.
  // A thread may get several of them, or none.
  template <class Fn>
  void parallel_for(int64_t count, Fn&& fn) {
    run(
        count,
        [](void* context, int64_t first, int64_t last, int thread) {
          (*static_cast<std::remove_reference_t<Fn>*>(context))(first, last, thread);
        },
        &fn);
  }

 private:
  using Share = void (*)(void* context, int64_t first, int64_t last, int thread);
  void run(int64_t count, Share share, void* context);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lapidary
