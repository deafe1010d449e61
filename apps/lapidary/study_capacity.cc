// lapidary study capacity: how many bits a model holds.
#include <filesystem>

#include <fmt/format.h>

#include "lapidary/capacity_study.h"

#include "base/fail.h"
#include "bench_options.h"
#include "io/output_file.h"
#include "study/capacity_file.h"
#include "study/capacity_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

namespace fs = std::filesystem;

struct Options {
  Verbosity verbosity;
  CapacityOptions capacity{.folder = "capacity"};
  std::string output = "capacity";
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  CapacityOptions& c = o.capacity;
  verb.add_option("--sizes", c.sizes, "Parameters of the models, about, embeddings included")
      ->delimiter(',')
      ->type_name("LIST")
      ->check(between<int64_t>(1000, 100'000'000))
      ->capture_default_str();
  verb.add_option("--loads", c.loads,
                  "Entropies of the data sets, in bits per parameter, ascending")
      ->delimiter(',')
      ->type_name("LIST")
      ->capture_default_str();
  verb.add_option("--layers", c.layers, "Of each model")
      ->type_name("N")
      ->check(between(1, 64))
      ->capture_default_str();
  verb.add_option("--vocabulary", c.vocabulary, "Tokens that are drawn from")
      ->type_name("N")
      ->check(between(2, 1 << 18))
      ->capture_default_str();
  verb.add_option("--length", c.length, "Tokens of a sequence; the first is not predicted")
      ->type_name("N")
      ->check(between<int64_t>(2, 4096))
      ->capture_default_str();
  verb.add_option("--epochs", c.epochs, "How often each sequence is learnt from")
      ->type_name("N")
      ->check(between<int64_t>(2, 1 << 30))
      ->capture_default_str();
  verb.add_option("--batch-size", c.batch, "Sequences of a step")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->capture_default_str();
  choices(verb.add_option("--optimizer", c.optimizer, "")->capture_default_str(),
          {"adamw", "adamw8", "sgd", "muon"});
  verb.add_option("--learning-rate,--lr", c.learning_rate, "The highest rate")
      ->type_name("X")
      ->capture_default_str();
  verb.add_option("--weight-decay", c.weight_decay,
                  "Of matrices: keeps them from growing, whose steps would come to count less")
      ->type_name("X")
      ->capture_default_str();
  verb.add_option("--seed", c.seed, "Of weights, data and its order")
      ->type_name("N")
      ->capture_default_str();
  verb.add_option("-o,--output", o.output,
                  "Folder for models, page and figures; a study that was stopped goes on")
      ->type_name("DIR")
      ->group("Output")
      ->capture_default_str();
  verb.add_flag("--json", o.json, "Print one JSON document as well")->group("Output");
  add_threads(verb, c.threads, "Speed");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Models of Gemma 3's shape learn sequences of uniformly random tokens, of which nothing can "
      "be known but by heart, and the bits that they come to know are counted: more with more "
      "data, until a model is full. One model is trained on each core. docs/study.md defines the "
      "figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study capacity -o capacity\n"
      "  lapidary study capacity --sizes 50000 --loads 2,4 --epochs 50 -o quick\n"
      "  lapidary study capacity --sizes 500000,1000000 --vocabulary 2048 -o large");
}

std::string summary(const CapacityStudy& study) {
  std::string text = fmt::format("{:>11}{:>11}{:>9}{:>11}{:>9}{:>8}{:>8}\n", "parameters",
                                 "data bits", "epochs", "memorised", "per p.", "unseen", "time");
  std::vector<CapacityRun> runs = study.runs;
  runs.insert(runs.end(), study.halves.begin(), study.halves.end());
  for (const CapacityRun& r : runs)
    text += fmt::format("{:>11}{:>11.0f}{:>9}{:>11.0f}{:>9.3f}{:>8.3f}{:>6.0f} s\n", r.parameters,
                        r.data_bits, r.epochs, r.memorized_bits, r.bits_per_parameter(),
                        r.control_bits / static_cast<double>(r.parameters), r.seconds);
  text += fmt::format("{:.2f} bits per parameter; sizes differ from it by at most {:.1f} %\n",
                      study.bits_per_parameter, 100 * study.largest_residual);
  for (const std::string& remark : capacity_remarks(study)) text += remark + "\n";
  return text;
}

int run(const Options& o) {
  apply(o.verbosity);
  CapacityOptions options = o.capacity;
  options.folder = o.output;
  const Interruption interruption;
  CapacityStudy study;
  {
    ProgressBar bar("training", o.verbosity);
    study = study_capacity(options, Watch{bar.fn(), interruption.token()});
  }
  write_file(options.folder / "capacity.json", to_json(study).dump(1) + "\n");
  write_file(options.folder / "report.html", render(capacity_report(study), ReportFormat::kHtml));
  if (o.json)
    out_json(to_json(study));
  else
    out(summary(study));
  note((options.folder / "report.html").string());
  return kOk;
}

}  // namespace

void add_study_capacity(Program& program, CLI::App& study) {
  add_verb<Options>(program, "capacity", "Count the bits that small models can hold", setup, run,
                    &study);
}

}  // namespace lapidary::cli
