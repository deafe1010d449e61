// lapidary study memory: what running and training a model take, forecast and measured.
#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "lapidary/memory_study.h"

#include "base/fail.h"
#include "bench_options.h"
#include "io/staging.h"
#include "study/memory_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

// A few short steps: what is measured does not change after them.
TrainOptions short_training() {
  TrainOptions options;
  options.iterations = 3;
  options.batch_size = 1;
  return options;
}

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  MemoryOptions memory;
  std::vector<std::string> cache_types = {"f32", "bf16", "q8", "q4"};
  std::string data;
  std::string method = "lora";
  TrainOptions train = short_training();
  StudyOutput output{.folder = "memory"};
};

void add_training(CLI::App& verb, Options& o) {
  auto* train =
      verb.add_option("--train", o.data, "Also train on this, as lapidary train --data takes it")
          ->type_name("PATH")
          ->group("Training");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return verb.add_option(name, value, help)->needs(train)->group("Training");
  };
  const auto number = [&](const char* name, auto& value, const char* help) {
    add(name, value, help)->type_name("N")->check(between<int64_t>(1, 1 << 30));
  };
  choices(add("--method", o.method, "As of lapidary train (lora)"),
          {"full", "lora", "relora", "rank1"});
  choices(add("--optimizer", o.train.optimizer, "(adamw)"), {"adamw", "adamw8", "sgd", "muon"});
  number("--iters", o.train.iterations, "Steps (3)");
  number("--rows", o.train.batch_size, "Rows of a step, all at once (1)");
  number("--sequence-length", o.train.sequence_length, "Tokens of a row (512)");
  number("--rank", o.train.rank, "Of an adapter, or of the steps of rank1 (8)");
  add("--checkpoint-layers", o.train.checkpoint_layers,
      "Keep what N layers leave for their way back; 0: of all (what fits)")
      ->type_name("N")
      ->check(between<int64_t>(0, 1 << 20));
}

void setup(CLI::App& verb, Options& o) {
  verb.add_option("-p,--n-prompt", o.memory.prompt, "Tokens of the prompt, without meaning (512)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 30))
      ->group("Generation");
  verb.add_option("-n,--n-gen", o.memory.generated, "Tokens to make after it, one by one (64)")
      ->type_name("N")
      ->check(between<int64_t>(0, 1 << 30))
      ->group("Generation");
  choices(verb.add_option("--cache-types", o.cache_types,
                          "Types of the K/V cache to fill up to -c positions (all; 8192)")
              ->delimiter(',')
              ->allow_extra_args(false)
              ->group("Generation"),
          {"f32", "bf16", "q8", "q4"});
  add_training(verb, o);
  add_study_output(verb, o.output);
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Loads the model, reads a prompt and goes on, fills caches of every type and, with --train, "
      "trains; beside the forecasts stands what the system counts: pages in memory, by phase, by "
      "layer and in time. docs/study.md defines the parts.\n"
      "\n"
      "Examples:\n"
      "  lapidary study memory\n"
      "  lapidary study memory -m ~/models/gemma-3-1b-it -p 2048 -n 128 -c 32768 -o 1b-memory\n"
      "  lapidary study memory --train book.txt --method full --json");
}

std::string summary(const MemoryStudy& study) {
  std::string text =
      fmt::format("{:<12}{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "MiB", "", "weights",
                  "K/V", "trained", "optimizer", "rest", "total", "most");
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  const auto line = [&](const std::string& name, const char* which, const MemoryParts& p) {
    return fmt::format("{:<12}{:<10}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}", name,
                       which, mib(p.weights), mib(p.kv_cache), mib(p.trained), mib(p.optimizer),
                       mib(p.rest), mib(p.total()));
  };
  const auto add = [&](const std::vector<MemoryPhase>& phases) {
    for (const MemoryPhase& phase : phases) {
      text += line(phase.name, "measured", phase.measured);
      text += fmt::format("{:>10.1f}\n", mib(phase.peak));
      if (phase.predicted) text += line("", "forecast", *phase.predicted) + "\n";
    }
  };
  add(study.generation.phases);
  if (study.training) add(study.training->phases);
  for (const KvGrowth& g : study.growth) {
    const KvGrowth::Point& last = g.points.back();
    text += fmt::format("keys and values of {} positions in {}: {}, forecast {}\n",
                        count_text(last.context), name_of(g.type), bytes_text(last.measured),
                        bytes_text(last.predicted));
  }
  return text;
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.output);
  MemoryOptions options = o.memory;
  options.model = model_folder(o.model, o.verbosity);
  options.engine = engine_options(o.model);
  options.engine.context = options.prompt + options.generated;
  if (o.model.context > 0) options.context = o.model.context;
  options.kv_types.clear();
  for (const std::string& name : o.cache_types)
    if (const KvType type = *kv_type_named(name);
        std::ranges::find(options.kv_types, type) == options.kv_types.end())
      options.kv_types.push_back(type);
  std::optional<Staging> staging;  // the run is of no use afterwards
  if (!o.data.empty()) {
    staging.emplace(std::filesystem::path(o.output.folder + "-training"));
    options.training = o.train;
    options.training->method = train_method(o.method);
    options.training->data = o.data;
    options.training->run = staging->path() / "run";
    options.training->long_documents = "split";
    options.training->threads = o.model.threads;
    options.training->compute = options.engine.compute;
    if (options.training->method == TrainMethod::kRelora) {
      options.training->reset_every = o.train.iterations;
      options.training->reset_warmup = 0;
    }
  }
  const Interruption interruption;
  MemoryStudy study;
  {
    ProgressBar bar("measuring", o.verbosity);
    study = study_memory(options, Watch{bar.fn(), interruption.token()});
  }
  const std::string name = options.model.filename().string();
  Json figures = {{"model", name}};
  figures.update(to_json(study));
  write_study(o.output, "memory.json", figures, memory_report(study, name), summary(study));
  return kOk;
}

}  // namespace

void add_study_memory(Program& program, CLI::App& study) {
  add_verb<Options>(program, "memory", "Measure what running and training take of memory", setup,
                    run, &study);
}

}  // namespace lapidary::cli
