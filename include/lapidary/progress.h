// room: base
// How long work tells how far it is, and learns that it should stop.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>

namespace lapidary {

// Called now and then with the units done so far and in all; from one thread at a time.
using ProgressFn = std::function<void(int64_t done, int64_t total)>;

// What a long call takes. Both parts may be left empty.
struct Watch {
  ProgressFn progress;
  std::stop_token stop;

  void report(int64_t done, int64_t total) const {
    if (progress) progress(done, total);
  }
  // Throws Error{kInterrupted} once a stop was asked for.
  void throw_if_stopped() const;
};

}  // namespace lapidary
