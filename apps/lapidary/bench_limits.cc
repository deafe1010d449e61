// lapidary bench limits: what this machine can do at most.
#include "bench_options.h"
#include "kernels/kernels.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  OutputOptions output;
  LimitOptions limits;
  int64_t memory = 1024;  // MiB
};

void setup(CLI::App& verb, Options& o) {
  add_threads(verb, o.limits.threads, "Measuring");
  verb.add_option("--seconds", o.limits.seconds, "Seconds of each measurement (0.2)")
      ->type_name("S")
      ->check(between(0.001, 60.0))
      ->group("Measuring");
  verb.add_option("-r,--repetitions", o.limits.rounds, "Measurements of each, in turn (3)")
      ->type_name("N")
      ->check(between(1, 1000))
      ->group("Measuring");
  add_probe_memory(verb, o.memory);
  verb.add_option("--filter", o.limits.filter, "Only limits whose name has this in it")
      ->type_name("TEXT")
      ->group("Measuring");
  add_output(verb, o.output);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Reading walks 1, 2, 4 or 8 rows side by side per thread, with and without software "
      "prefetch; arithmetic stays in registers. Everything runs with one thread and with all.\n"
      "\n"
      "Examples:\n"
      "  lapidary bench limits\n"
      "  lapidary bench limits --filter int8 -o json");
}

int run(const Options& o) {
  apply(o.verbosity);
  best_kernels();  // refuses an unknown LAPIDARY_ISA, though nothing here goes by it
  LimitOptions options = o.limits;
  options.memory = o.memory << 20;
  PageFile page(o.output.html);
  const Interruption interruption;
  std::vector<Limit> limits;
  {
    ProgressBar bar("measuring", o.verbosity);
    limits = measure_limits(options, Watch{bar.fn(), interruption.token()});
  }
  put(limits_report(this_host(), limits), o.output, page);
  return interruption.requested() ? kInterrupted : kOk;
}

}  // namespace

void add_bench_limits(Program& program, CLI::App& bench) {
  add_verb<Options>(program, "limits", "Measure what the machine can do at most", setup, run,
                    &bench);
}

}  // namespace lapidary::cli
