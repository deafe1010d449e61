// lapidary bench natural: answers of the length that the model gives them.
#include "base/fail.h"
#include "base/system.h"
#include "bench_options.h"

namespace lapidary::cli {

namespace {

namespace fs = std::filesystem;

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  OutputOptions output;
  SamplingFlags sampling;
  int64_t tokens = 512;
};

void setup(CLI::App& verb, Options& o) {
  o.sampling.temp = 0;
  verb.add_option("-n,--max-tokens", o.tokens, "Cut an answer off after this many tokens (512)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->group("Measuring");
  verb.add_option("--temp", o.sampling.temp, "Temperature; 0 takes the likeliest token (0)")
      ->type_name("T")
      ->group("Measuring");
  verb.add_option("--seed", o.sampling.options.seed, "The same seed draws the same tokens (0)")
      ->type_name("N")
      ->group("Measuring");
  add_threads(verb, o.model.threads, "Measuring");
  add_output(verb, o.output);
  add_model(verb, o.model);
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Three questions, whose answers are short, medium and long, are put in the chat format.\n"
      "\n"
      "Examples:\n"
      "  lapidary bench natural -m ~/models/gemma-3-1b-it\n"
      "  lapidary bench natural -m ~/models/gemma-3-1b-it --temp 1 --seed 7 -o json");
}

// Of the files that hold the weights.
int64_t file_bytes(const fs::path& model) {
  if (!fs::is_directory(model)) return static_cast<int64_t>(fs::file_size(model));
  uintmax_t bytes = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(model))
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  return static_cast<int64_t>(bytes);
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.sampling);
  const auto engine = load_engine(o.model, o.verbosity);
  PageFile page(o.output.html);
  const Interruption interruption;
  std::vector<NaturalResult> results;
  const int code = until_interrupted(results, [&] {
    ProgressBar bar("reading the prompt", o.verbosity);
    measure_natural(
        engine, resolve(o.sampling, *engine), o.tokens,
        [&](const NaturalResult& result) { results.push_back(result); },
        Watch{bar.fn(), interruption.token()});
  });
  put(natural_report(this_host(), describe_model(*engine), results, file_bytes(engine->folder()),
                     peak_rss_bytes()),
      o.output, page);
  return code;
}

}  // namespace

void add_bench_natural(Program& program, CLI::App& bench) {
  add_verb<Options>(program, "natural", "Time answers of the length the model gives them", setup,
                    run, &bench);
}

}  // namespace lapidary::cli
