#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>
#include <utility>

#include "base/fail.h"

namespace lapidary {

namespace {

constexpr std::pair<ScheduleKind, std::string_view> kKinds[] = {
    {ScheduleKind::kConstant, "constant"},
    {ScheduleKind::kLinear, "linear"},
    {ScheduleKind::kCosine, "cosine"},
    {ScheduleKind::kJaggedCosine, "jagged"}};

double part(int64_t done, int64_t of) {
  return static_cast<double>(done) / static_cast<double>(std::max(int64_t{1}, of));
}

void check_restarts(const ScheduleOptions& o) {
  if (o.restart_every < 1)
    fail_usage("--reset-every: {} given, expected 1 or more steps", o.restart_every);
  if (o.steps % o.restart_every != 0)
    fail_usage("--reset-every: {} does not divide the {} steps", o.restart_every, o.steps);
  if (o.restart_warmup < 0 || o.restart_warmup >= o.restart_every)
    fail_usage(
        "--reset-warmup: {} given, expected 0 or more and less than the {} steps between "
        "restarts",
        o.restart_warmup, o.restart_every);
}

}  // namespace

ScheduleKind schedule_kind(std::string_view name) {
  for (const auto& [kind, its_name] : kKinds)
    if (its_name == name) return kind;
  fail_usage("--schedule: '{}' given, expected constant, linear, cosine or jagged", name);
}

std::string_view name_of(ScheduleKind kind) {
  return std::find_if(std::begin(kKinds), std::end(kKinds),
                      [kind](const auto& known) { return known.first == kind; })
      ->second;
}

Schedule::Schedule(const ScheduleOptions& options) : options_(options) {
  const ScheduleOptions& o = options_;
  if (!(o.lr > 0 && std::isfinite(o.lr)))
    fail_usage("--learning-rate: {} given, expected more than 0", o.lr);
  if (o.steps < 1) fail_usage("--iters: {} given, expected 1 or more", o.steps);
  if (o.warmup_steps < 0 || o.warmup_steps > o.steps)
    fail_usage("--warmup: {} given, expected 0 to the {} steps there are", o.warmup_steps, o.steps);
  if (!(o.min_ratio >= 0 && o.min_ratio <= 1))
    fail_usage("--min-lr-ratio: {} given, expected 0 to 1", o.min_ratio);
  if (o.kind == ScheduleKind::kJaggedCosine) check_restarts(o);
}

double Schedule::base(int64_t step) const {
  const ScheduleOptions& o = options_;
  if (o.kind == ScheduleKind::kConstant) return o.lr;
  const double progress =
      part(std::max(int64_t{0}, step - o.warmup_steps), o.steps - o.warmup_steps);
  const double left = o.kind == ScheduleKind::kLinear
                          ? 1 - progress
                          : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return o.lr * (o.min_ratio + (1 - o.min_ratio) * left);
}

double Schedule::lr(int64_t step) const {
  const ScheduleOptions& o = options_;
  LAPIDARY_CHECK(step >= 0, "steps count from 0");
  if (step < o.warmup_steps) return o.lr * part(step, o.warmup_steps);
  if (step >= o.steps) return base(o.steps);
  if (o.kind == ScheduleKind::kJaggedCosine && step >= o.restart_every) {
    const int64_t since = step % o.restart_every;
    if (since < o.restart_warmup) return part(since, o.restart_warmup) * base(step - since);
  }
  return base(step);
}

bool Schedule::restarts_at(int64_t step) const {
  return options_.kind == ScheduleKind::kJaggedCosine && step > 0 && step < options_.steps &&
         step % options_.restart_every == 0;
}

}  // namespace lapidary
