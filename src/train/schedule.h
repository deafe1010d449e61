// The learning rate of each step.
#pragma once

#include <cstdint>
#include <string_view>

namespace lapidary {

enum class ScheduleKind : uint8_t {
  kConstant,
  kLinear,        // falls to min_ratio * lr in a line
  kCosine,        // falls to min_ratio * lr in half a cosine
  kJaggedCosine,  // the same, and from zero up to it again after each restart
};

// "constant", "linear", "cosine" or "jagged". Throws Error{kUsage}.
ScheduleKind schedule_kind(std::string_view name);
std::string_view name_of(ScheduleKind kind);

// All but constant end with the last of `steps`. The first `warmup_steps` go up from zero in a
// line: step 0 has the rate 0, as in HF transformers.
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kCosine;
  double lr = 1e-3;  // the highest
  int64_t steps = 0;
  int64_t warmup_steps = 0;
  double min_ratio = 0.1;       // of linear and cosine: what is left at the end, of `lr`
  int64_t restart_every = 0;    // of jagged: a whole number of these makes up `steps`
  int64_t restart_warmup = 50;  // of jagged: steps back up to the cosine
};

// A pure function of the step. With the base rate
//
//     base(s) = lr * (m + (1 - m) * (1 + cos(pi * p)) / 2),  p = (s - warmup) / (steps - warmup)
//
// and q = restart_every, R = restart_warmup, the jagged rate at s = k q + r with k >= 1, s >=
// warmup and r < R is (r / R) * base(k q), and base(s) elsewhere (ReLoRA, arXiv 2307.05695).
class Schedule {
 public:
  // Throws Error{kUsage} naming the option: steps < 1, a warm-up that is longer than them, a ratio
  // outside 0 ... 1, a rate that is not positive, restarts that do not divide the steps, or whose
  // warm-up is longer than they are apart.
  explicit Schedule(const ScheduleOptions& options);

  // Of the step that follows `step` completed ones; from `steps` on, what it was about to be there.
  double lr(int64_t step) const;

  // Whether adapters are merged and the optimizer's state is pruned before this step.
  bool restarts_at(int64_t step) const;

 private:
  double base(int64_t step) const;
  ScheduleOptions options_;
};

}  // namespace lapidary
