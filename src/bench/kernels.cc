#include <memory>

#include "base/clock.h"
#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/statistics.h"
#include "bench/kernel_cases.h"
#include "bench/meter.h"

namespace lapidary {

namespace {

// Seconds of a call, the median of those that fit into the time; one at least.
double time_calls(const std::function<void(Executor&)>& run, Executor& ex, double seconds) {
  run(ex);
  std::vector<double> times;
  const Stopwatch all;
  do {
    const Stopwatch one;
    run(ex);
    times.push_back(one.seconds());
  } while (all.seconds() < seconds);
  return median(times);
}

// Times a case on a table, and what the machine can do just before and just after.
void time_case(const KernelCase& c, Executor& table, double seconds, Ceilings* ceilings,
               KernelResult& result) {
  const auto run = c.prepare();
  if (ceilings) {
    Work work = c.work;
    if (!c.from_memory) work.bytes = 0;
    ceilings->begin(result.isa, work);
    ceilings->sample();
  }
  result.seconds = time_calls(run, table, seconds);
  if (ceilings) {
    ceilings->sample();
    result.ceiling = ceilings->ceiling();
  }
}

}  // namespace

void measure_kernels(const KernelOptions& options,
                     const std::function<void(const KernelResult&)>& on_result,
                     const Watch& watch) {
  const int threads = options.threads > 0 ? options.threads : cpu_budget().threads();
  std::unique_ptr<Ceilings> ceilings;  // made for the first case that is wanted: that takes a while
  const Kernels* ref = supported_kernels().front();
  Executor definition(*ref, threads);
  for (const Kernels* kernels : supported_kernels()) {
    Executor table(*kernels, threads);
    for (const KernelCase& c : kernel_cases(*kernels, threads)) {
      watch.throw_if_stopped();
      const std::string name = fmt::format("{} {} {}", kernels->isa, c.op, c.shape);
      if (name.find(options.filter) == std::string::npos) continue;
      if (options.limits && !ceilings)
        ceilings = std::make_unique<Ceilings>(threads, options.memory);
      KernelResult result = check_kernel(c, definition, table);
      if (result.correct) time_case(c, table, options.seconds, ceilings.get(), result);
      on_result(result);
    }
  }
}

}  // namespace lapidary
