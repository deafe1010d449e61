// room: bench
// How fast this machine is at most, and how fast a model runs on it. The columns are explained in
// docs/performance.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/sampler.h"

namespace lapidary {

// ---- what the machine can do

struct LimitOptions {
  int threads = 0;                    // 0: one per core this process may use
  double seconds = 0.2;               // of a measurement
  int rounds = 3;                     // of each limit, in turn with the others
  int64_t memory = int64_t{1} << 30;  // bytes to read through, far more than the caches hold
  std::string filter;                 // only limits whose name has this in it
};

struct Limit {
  std::string name;  // "read, 4 streams", "avx2 f32"
  std::string isa;   // of the instructions; "" for reading
  std::string what;  // the instructions, or how memory is read
  std::string unit;  // "GB/s", "TFLOP/s", "TOP/s", with 1000s
  int threads = 1;
  std::vector<double> samples = {};  // a value in `unit` per round
};

// Every limit with one thread and with all of them. Throws Error{kResource} when the memory is not
// to be had. A stop request ends it with the limits that have a sample.
std::vector<Limit> measure_limits(const LimitOptions& options, const Watch& watch = {});

// ---- how fast a model is

// What is timed: `prompt` tokens at once, or `gen` tokens one after another, in each of `batch`
// sessions together, after `depth` tokens that are not timed. One of prompt and gen is 0.
struct SpeedTest {
  int64_t prompt = 0;
  int64_t gen = 0;
  int64_t depth = 0;
  int64_t batch = 1;
  int64_t tokens() const { return (prompt + gen) * batch; }
};
std::string name_of(const SpeedTest& test);  // "pp512", "tg64 @ d4096"

struct SpeedOptions {
  int repetitions = 5;
  int64_t context = 0;                // positions of the sessions; at least depth + prompt + gen
  bool limits = true;                 // measure the machine's limits between the repetitions
  int64_t memory = int64_t{1} << 30;  // see LimitOptions
};

// The least a test must move and do, per token.
struct Work {
  double bytes = 0;
  double flops = 0;
  double rounded = 0;  // of the flops: products of activations rounded to 8 bits
  double bf16 = 0;     // of the flops: products of operands rounded to bf16
};

// The ceiling that a test would reach first.
struct Ceiling {
  std::string name = {};         // of the limit; empty when none was measured
  std::string unit = {};         // "GB/s", "TFLOP/s" or, where activations are rounded, "TOP/s"
  double value = 0;              // in `unit`
  double tokens_per_second = 0;  // of the test, at that rate
};

struct SpeedResult {
  SpeedTest test;
  std::string time;  // UTC, when it began: "2026-09-01T12:00:00Z"
  int threads = 1;
  std::vector<int64_t> samples_ns = {};
  Work work = {};
  Ceiling ceiling = {};

  std::vector<double> samples_ts() const;  // tokens per second of all sessions together
};

// Measures one engine. Holds the tokens before a test's depth, so tests of growing depth add to
// what there is.
class SpeedBench {
 public:
  SpeedBench(const std::shared_ptr<const Engine>& engine, const SpeedOptions& options);
  ~SpeedBench();

  // One warm-up, then the repetitions. A stop request ends it with the repetitions that are done,
  // and throws Error{kInterrupted} when there are none.
  SpeedResult run(const SpeedTest& test, const Watch& watch = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// ---- answers of natural length

struct NaturalResult {
  std::string name;  // of the prompt: "short"
  std::string prompt = {};
  int64_t prompt_tokens = 0;
  int64_t tokens = 0;  // made, until the model ended its answer
  bool ended = false;  // false: max_tokens were made
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  double first_token_seconds = 0;
  std::string text = {};
};

// Three questions in the chat format, each in a session of its own; on_result gets each answer.
void measure_natural(const std::shared_ptr<const Engine>& engine, const SamplerOptions& sampling,
                     int64_t max_tokens, const std::function<void(const NaturalResult&)>& on_result,
                     const Watch& watch = {});

// ---- kernels by themselves

struct KernelOptions {
  int threads = 0;          // 0: one per core this process may use
  double seconds = 0.1;     // of a measurement
  std::string filter = {};  // only rows whose description has this in it
  bool limits = true;       // measure the machine's limits beside
  int64_t memory = int64_t{1} << 30;
};

struct KernelResult {
  std::string isa;
  std::string op;     // "matmul"
  std::string shape;  // "4-bit, 6912 x 1152, 8 tokens"
  double error = 0;   // root mean square of the difference from ref over that of ref
  bool correct = false;
  double seconds = 0;    // of one call, the median
  Work work = {};        // of one call
  Ceiling ceiling = {};  // its tokens_per_second counts calls
};

// Every operation of every kernel table this machine has: first compared with the definition at odd
// sizes, then timed.
void measure_kernels(const KernelOptions& options,
                     const std::function<void(const KernelResult&)>& on_result,
                     const Watch& watch = {});

}  // namespace lapidary
