// Measures what the machine can do at most, a moment at a time, so that it can be measured between
// the repetitions of what is compared with it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/bench.h"

#include "base/thread_pool.h"
#include "kernels/probe.h"

namespace lapidary {

// A way to read memory.
struct ReadPattern {
  int streams = 1;    // rows that lie far apart, walked side by side by each thread
  int64_t ahead = 0;  // bytes prefetched by software; 0: none

  std::string name() const;  // "read, 4 streams, prefetch"
};
std::vector<ReadPattern> read_patterns();

class Meter {
 public:
  // Allocates `memory` bytes in huge pages where the system gives them, and writes to all of them.
  // Throws Error{kResource} when they are not to be had.
  Meter(int threads, int64_t memory);
  ~Meter();
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  int threads() const { return pool_.threads(); }
  // Bytes per second, by `threads` threads (1 or all) in about `seconds`.
  double read(const ReadPattern& pattern, int threads, double seconds);
  // Operations per second.
  double compute(const ComputeProbe& probe, int threads, double seconds);

 private:
  template <class Fn>
  double rate(int threads, double seconds, Fn&& slice);

  ThreadPool pool_;
  std::byte* memory_ = nullptr;
  int64_t bytes_;                 // of memory_
  std::vector<int64_t> cursors_;  // by thread: where its next slice starts in each of its rows
};

// The probes of the units that a kernel table computes with: products of floats, of rounded
// activations, and of operands rounded to bf16. nullptr: ref's, which no unit limits, or there is
// none.
struct Units {
  const ComputeProbe* floats = nullptr;
  const ComputeProbe* rounded = nullptr;
  const ComputeProbe* bf16 = nullptr;
};
Units units_of(std::string_view isa);

// What is measured beside a test: the best way to read memory, chosen once, and the units that
// compute.
class Ceilings {
 public:
  Ceilings(int threads, int64_t memory);

  // Drops the samples; those that follow are of what this work, by this table, needs.
  void begin(std::string_view isa, const Work& work);
  // Takes a sample of each.
  void sample();
  // The ceiling that the work reaches first, from the samples' medians.
  Ceiling ceiling() const;

 private:
  static constexpr double kSeconds = 0.05;  // of a sample
  Meter meter_;
  ReadPattern pattern_;
  Work work_;
  // Of each, samples per second: bytes, and operations on floats and on rounded activations.
  std::vector<double> read_;
  struct Part {
    const ComputeProbe* unit;
    double operations;  // of the work
    std::vector<double> samples = {};
  };
  std::vector<Part> parts_;
};

}  // namespace lapidary
