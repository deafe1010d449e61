// lapidary bench kernels: every kernel, compared with the definition and timed.
#include <algorithm>

#include <fmt/format.h>

#include "base/fail.h"
#include "bench_options.h"
#include "kernels/kernels.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  OutputOptions output;
  KernelOptions kernels;
  bool no_limits = false;
  int64_t memory = 1024;  // MiB
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("--filter", o.kernels.filter,
                  "Only rows that have this in them, as in 'avx2 matmul'")
      ->type_name("TEXT")
      ->group("Measuring");
  verb.add_option("--seconds", o.kernels.seconds, "Seconds of each measurement (0.1)")
      ->type_name("S")
      ->check(between(0.001, 60.0))
      ->group("Measuring");
  verb.add_flag("--no-limits", o.no_limits, "Do not measure what the machine can do")
      ->group("Measuring");
  add_threads(verb, o.kernels.threads, "Measuring");
  add_probe_memory(verb, o.memory);
  add_output(verb, o.output);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "A kernel that differs from the definition is not timed, and makes the exit code 1.\n"
      "\n"
      "Examples:\n"
      "  lapidary bench kernels --filter avx2\n"
      "  lapidary bench kernels --filter \"8 tokens\" -o csv");
}

int run(const Options& o) {
  apply(o.verbosity);
  best_kernels();  // refuses an unknown LAPIDARY_ISA, though all kernels are measured
  KernelOptions options = o.kernels;
  options.limits = !o.no_limits;
  options.memory = o.memory << 20;
  PageFile page(o.output.html);
  const Interruption interruption;
  std::vector<KernelResult> results;
  const auto on_result = [&](const KernelResult& result) {
    results.push_back(result);
    if (stderr_is_terminal() && !o.verbosity.quiet)
      note(dim(fmt::format("{} {} {}", result.isa, result.op, result.shape)));
  };
  const int code = until_interrupted(results, [&] {
    measure_kernels(options, on_result, Watch{{}, interruption.token()});
  });
  if (results.empty()) fail_usage("--filter: no row has '{}' in it", options.filter);
  put(kernels_report(this_host(), results), o.output, page);
  const bool correct =
      std::all_of(results.begin(), results.end(), [](const KernelResult& r) { return r.correct; });
  return code == kOk && !correct ? kFailed : code;
}

}  // namespace

void add_bench_kernels(Program& program, CLI::App& bench) {
  add_verb<Options>(program, "kernels", "Check and time every kernel", setup, run, &bench);
}

}  // namespace lapidary::cli
