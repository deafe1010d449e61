// lapidary study capacity: how many bits a model holds.
#include <fmt/format.h>

#include "lapidary/capacity_study.h"

#include "bench_options.h"
#include "capacity_verbs.h"
#include "study/capacity_file.h"
#include "study/capacity_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  CapacityOptions capacity;
  GoingOn output{.folder = "capacity"};
};

void setup(CLI::App& verb, Options& o) {
  CapacityOptions& c = o.capacity;
  add_models(verb, c.sizes, c.layers);
  verb.add_option("--loads", c.loads,
                  "Entropies of the data sets, in bits per parameter, ascending")
      ->delimiter(',')
      ->type_name("LIST")
      ->capture_default_str();
  verb.add_option("--vocabulary", c.vocabulary, "Tokens that are drawn from")
      ->type_name("N")
      ->check(between(2, 1 << 18))
      ->capture_default_str();
  verb.add_option("--epochs", c.epochs, "How often each sequence is learnt from")
      ->type_name("N")
      ->check(between<int64_t>(2, 1 << 30))
      ->capture_default_str();
  add_recipe(verb, c.recipe, 2);
  add_going_on(verb, o.output);
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
  options.folder = o.output.folder;
  const Interruption interruption;
  CapacityStudy study;
  {
    ProgressBar bar("training", o.verbosity);
    study = study_capacity(options, Watch{bar.fn(), interruption.token()});
  }
  write_going_on(o.output, "capacity.json", to_json(study), capacity_report(study), summary(study));
  return kOk;
}

}  // namespace

void add_study_capacity(Program& program, CLI::App& study) {
  add_verb<Options>(program, "capacity", "Count the bits that small models can hold", setup, run,
                    &study);
}

}  // namespace lapidary::cli
