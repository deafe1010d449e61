// lapidary bench: how fast a model is here, and how near to what the machine can do.
#include <algorithm>

#include <fmt/format.h>

#include "base/fail.h"
#include "base/statistics.h"
#include "bench_options.h"
#include "settings.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

using Texts = std::vector<std::string>;

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  OutputOptions output;
  Texts prompt, gen, depth = {"0"}, batch = {"1"}, threads;
  int64_t to = 8192;
  int repetitions = 5;
  bool no_limits = false;
  int64_t memory = 1024;  // MiB
};

CLI::Option* add_numbers(CLI::App& verb, const char* names, Texts& texts, const char* text) {
  return verb.add_option(names, texts, text)
      ->type_name("N,..")
      ->allow_extra_args(false)
      ->group("Measuring");
}

void add_shared(CLI::App& verb, Options& o) {
  add_numbers(verb, "-b,--batch", o.batch, "Sessions that go on together (1)");
  add_numbers(verb, "-t,--threads", o.threads, "Threads (default, and 0: one per core)")
      ->envname("LAPIDARY_THREADS");
  add_settings(verb);
  verb.add_option("-r,--repetitions", o.repetitions, "Repetitions of each test (5)")
      ->type_name("N")
      ->group("Measuring");
  verb.add_flag("--no-limits", o.no_limits, "Do not measure what the machine can do")
      ->group("Measuring");
  add_probe_memory(verb, o.memory);
  add_output(verb, o.output);
  add_model(verb, o.model);
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
}

void setup_speed(CLI::App& verb, Options& o) {
  o.prompt = {"512"};
  o.gen = {"128"};
  add_numbers(verb, "-p,--n-prompt", o.prompt, "Tokens of a prompt to read; 0: no such test (512)");
  add_numbers(verb, "-n,--n-gen", o.gen, "Tokens to make, one by one; 0: no such test (128)");
  add_numbers(verb, "-d,--n-depth", o.depth, "Tokens that are there before (0)");
  add_shared(verb, o);
  verb.footer(
      "The options are those of llama-bench, but for -b: 128,512 or 0-4096+1024 or "
      "128-2048*2 or an option given twice make a test per combination. Tokens are random. "
      "docs/performance.md explains the columns. Ctrl-C prints what is done.\n"
      "\n"
      "Examples:\n"
      "  lapidary bench -m ~/models/gemma-3-1b-it -p 512 -n 64\n"
      "  lapidary bench -n 32 -p 0 -b 1,4,16 -o json\n"
      "  lapidary bench limits\n"
      "  lapidary bench curve -m ~/models/gemma-3-1b-it --html curve.html");
}

void setup_curve(CLI::App& verb, Options& o) {
  o.prompt = {"0"};
  o.gen = {"16"};
  o.depth.clear();
  o.repetitions = 3;
  auto* to = verb.add_option("--to", o.to, "The last depth; the first are 0, 256, 512, ... (8192)");
  to->type_name("N")->group("Measuring")->check(between(int64_t{1}, int64_t{1} << 24));
  add_numbers(verb, "-d,--n-depth", o.depth, "These depths instead")->excludes(to);
  add_numbers(verb, "-n,--n-gen", o.gen, "Tokens to make at each depth (16)");
  add_shared(verb, o);
  verb.footer(
      "Examples:\n"
      "  lapidary bench curve -m ~/models/gemma-3-1b-it --to 8192 --html curve.html\n"
      "  lapidary bench curve -d 0-4096+512 -b 1,8 -o csv");
}

// ---- which tests

struct Tests {
  std::vector<SpeedTest> list;   // for each number of threads
  std::vector<int64_t> threads;  // 0: one per core
  int64_t context = 0;           // positions of the longest
};

Tests tests_of(const Options& o) {
  const auto prompts = parse_numbers(o.prompt, "-p", 0), gens = parse_numbers(o.gen, "-n", 0);
  const auto batches = parse_numbers(o.batch, "-b", 1);
  Tests tests;
  tests.threads = o.threads.empty() ? std::vector<int64_t>{0} : parse_numbers(o.threads, "-t", 0);
  for (const int64_t threads : tests.threads)
    if (threads > kMostThreads) fail_usage("-t: {} given, expected 0 to {}", threads, kMostThreads);
  std::vector<int64_t> depths = parse_numbers(o.depth, "-d", 0);
  if (o.depth.empty()) {  // the curve's: doubling
    for (int64_t depth = 0; depth < o.to; depth = depth == 0 ? 256 : depth * 2)
      depths.push_back(depth);
    depths.push_back(o.to);
  }
  for (const int64_t depth : depths)
    for (const int64_t batch : batches) {
      for (const int64_t n : prompts)
        if (n > 0) tests.list.push_back({.prompt = n, .depth = depth, .batch = batch});
      for (const int64_t n : gens)
        if (n > 0) tests.list.push_back({.gen = n, .depth = depth, .batch = batch});
    }
  if (tests.list.empty()) fail_usage("-p 0 -n 0: nothing to measure");
  // Sessions are kept for the next test that is deeper.
  std::stable_sort(tests.list.begin(), tests.list.end(), [](const auto& a, const auto& b) {
    return std::pair(a.batch, a.depth) < std::pair(b.batch, b.depth);
  });
  for (const SpeedTest& test : tests.list)
    tests.context = std::max(tests.context, test.depth + test.prompt + test.gen);
  return tests;
}

// ---- running them

struct Measured {
  BenchedModel model;
  std::vector<SpeedResult> results;
};

void run_tests(const Options& o, const Tests& tests, std::stop_token stop, Measured& measured) {
  for (const int64_t threads : tests.threads) {
    ModelOptions model = o.model;
    model.threads = static_cast<int>(threads);
    const auto engine = load_engine(model, o.verbosity);
    measured.model = describe_model(*engine);
    SpeedBench bench(engine, {.repetitions = o.repetitions,
                              .context = tests.context,
                              .limits = !o.no_limits,
                              .memory = o.memory << 20});
    for (const SpeedTest& test : tests.list) {
      ProgressBar bar(name_of(test), o.verbosity);
      measured.results.push_back(bench.run(test, Watch{bar.fn(), stop}));
      const std::vector<double> ts = measured.results.back().samples_ts();
      if (stderr_is_terminal() && !o.verbosity.quiet)
        note(dim(fmt::format("\r\033[K{}: {:.2f} tokens/s", name_of(test), mean(ts))));
      if (stop.stop_requested()) throw Error(ErrorKind::kInterrupted, "interrupted");
    }
  }
}

using MakeReport = Report (*)(const BenchHost&, const BenchedModel&, std::span<const SpeedResult>);

int run_speed(const Options& o, MakeReport make_report) {
  apply(o.verbosity);
  if (o.repetitions < 1) fail_usage("-r: {} given, expected 1 or more", o.repetitions);
  const Tests tests = tests_of(o);
  PageFile page(o.output.html);
  const Interruption interruption;
  Measured measured;
  const int code = until_interrupted(measured.results,
                                     [&] { run_tests(o, tests, interruption.token(), measured); });
  put(make_report(this_host(), measured.model, measured.results), o.output, page);
  return code;
}

}  // namespace

void add_bench(Program& program) {
  CLI::App& bench = add_verb<Options>(
      program, "bench", "Measure speed, and how near it is to what the machine can do", setup_speed,
      [](const Options& o) { return run_speed(o, speed_report); });
  bench.require_subcommand(0, 1);
  add_verb<Options>(
      program, "curve", "Measure the speed of decoding along the context", setup_curve,
      [](const Options& o) { return run_speed(o, curve_report); }, &bench);
  add_bench_natural(program, bench);
  add_bench_decode(program, bench);
  add_bench_kernels(program, bench);
  add_bench_limits(program, bench);
  add_bench_peers(program, bench);
}

}  // namespace lapidary::cli
