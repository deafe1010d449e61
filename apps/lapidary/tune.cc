// lapidary tune: measures this machine and writes the settings that suit it.
#include "lapidary/tune.h"

#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

#include "lapidary/synth.h"

#include "base/fail.h"
#include "bench_options.h"
#include "io/output_file.h"
#include "io/staging.h"
#include "settings.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

namespace fs = std::filesystem;

constexpr const char* kPreset = "gemma-3-270m";

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TuneOptions tune;
  std::string file;
  bool dry_run = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  const auto number = [&](const char* flags, auto& value, const char* help, int64_t least) {
    verb.add_option(flags, value, help)
        ->type_name("N")
        ->check(between<int64_t>(least, 1 << 20))
        ->group("Measuring");
  };
  number("-r,--repetitions", o.tune.rounds, "Measurements of each value, in turns (3)", 1);
  number("-p,--n-prompt", o.tune.prompt, "Tokens of a prompt (512)", 16);
  number("-n,--n-gen", o.tune.gen, "Steps of decoding (32)", 1);
  number("-d,--n-depth", o.tune.depth, "Tokens before them, for the type of the cache (2048)", 0);
  verb.add_option("-o,--output", o.file,
                  "The file (default: lapidary/settings.json in $XDG_CONFIG_HOME or ~/.config, "
                  "which the other verbs look for)")
      ->type_name("FILE")
      ->group("Output");
  verb.add_flag("--dry-run", o.dry_run, "Measure and say so, but write nothing")->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document: what the file has")->group("Output");
  add_model(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Without -m, a random model of the shape of gemma-3-270m in 4 bits is made, measured and "
      "removed: the built-in one fits the caches of the CPU, which real ones do not. Other work "
      "on the machine misleads it.\n"
      "\n"
      "What a verb is told by a flag or a variable wins over the file. It names the machine that "
      "was measured, and is not used on another.\n"
      "\n"
      "Examples:\n"
      "  lapidary tune\n"
      "  lapidary tune -m ~/models/gemma-3-4b-it --dry-run\n"
      "  lapidary generate --settings none -p Once");
}

std::string text_of(const std::vector<TuneChoice>& choices) {
  std::string text;
  for (const TuneChoice& choice : choices) {
    text += fmt::format("{:<14} {:<8} {}\n", choice.setting, choice.chosen, choice.why);
    if (choice.values.size() == 1) continue;
    text += fmt::format("{:<14} {}:", "", choice.measured);
    for (const TuneValue& v : choice.values)
      text += fmt::format(" {} {:.1f}{}", v.value, v.median(),
                          v.allowed ? "" : " (less exact, never chosen)");
    text += " tok/s\n";
  }
  return text;
}

// The model that is measured: of -m, or a random one in `staging`.
fs::path model_of(const Options& o, std::optional<Staging>& staging, const Watch& watch) {
  if (!o.model.model.empty()) return model_path(o.model.model);
  if (!o.verbosity.quiet)
    note(fmt::format("lapidary: no -m given, measuring a random {} in 4 bits", kPreset));
  staging.emplace(fs::temp_directory_path() / "lapidary-tune");
  synthesize(preset(kPreset), {.bits = 4}, staging->path() / kPreset, Watch{{}, watch.stop});
  return staging->path() / kPreset;
}

// The folder of `file`, in which files can be made.
void make_place(const fs::path& file) {
  const fs::path folder = fs::absolute(file).parent_path();
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && ::access(folder.c_str(), W_OK | X_OK) != 0)
    error = {errno, std::generic_category()};
  if (error)
    throw Error(ErrorKind::kResource, fmt::format("{}: {}", folder.string(), error.message()));
}

int run(const Options& o) {
  apply(o.verbosity);
  const fs::path file = o.file.empty() ? settings_file() : fs::path(o.file);
  if (file.empty() && !o.dry_run)
    throw Error(ErrorKind::kUsage, "there is no HOME to write the settings to",
                "name a file with -o, and give it to verbs by --settings");
  if (!o.dry_run) make_place(file);  // before minutes of measuring
  std::optional<Staging> staging;
  const Interruption interruption;
  std::vector<TuneChoice> choices;
  std::string model;
  {
    ProgressBar bar("measuring", o.verbosity);
    const Watch watch{bar.fn(), interruption.token()};
    TuneOptions options = o.tune;
    options.model = model_of(o, staging, watch);
    model = options.model.filename().string();
    choices = tune(options, watch);
  }
  const Json json = settings_json(choices, model);
  if (!o.dry_run) {
    write_file(file, json.dump(2) + "\n");
  }
  if (o.json)
    out_json(json);
  else
    out(text_of(choices));
  if (!o.dry_run && !o.verbosity.quiet) note(file.string());
  return kOk;
}

}  // namespace

void add_tune(Program& program) {
  add_verb<Options>(program, "tune", "Measure which settings suit this machine, and keep them",
                    setup, run);
}

}  // namespace lapidary::cli
