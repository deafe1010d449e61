// lapidary study capacity-layers: which layers learn by heart.
#include <fmt/format.h>

#include "lapidary/layer_capacity_study.h"

#include "bench_options.h"
#include "capacity_verbs.h"
#include "study/layer_capacity_file.h"
#include "study/layer_capacity_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  LayerCapacityOptions capacity;
  std::string data;
  GoingOn output{.folder = "capacity-layers"};
};

void setup(CLI::App& verb, Options& o) {
  LayerCapacityOptions& c = o.capacity;
  add_model(verb, o.model);
  verb.add_option("--data", o.data,
                  "What is learnt, as lapidary train takes it (tokens that are drawn uniformly)")
      ->type_name("PATH");
  verb.add_option("--sequences", c.sequences, "To learn, and as many that are not learnt")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->capture_default_str();
  verb.add_option("--layers", c.layers, "Those that get an adapter (each)")
      ->delimiter(',')
      ->type_name("LIST");
  verb.add_option("--rank", c.rank, "Of the adapters")
      ->type_name("N")
      ->check(between<int64_t>(1, 4096))
      ->capture_default_str();
  add_steps(verb, c.steps, 1);
  add_recipe(verb, c.recipe, 2);
  add_going_on(verb, o.output);
  add_threads(verb, c.threads, "Speed");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "An adapter on one layer at a time, and one on all, learns the same sequences on the same "
      "model, and the bits that it comes to know are counted. One adapter is trained on each core. "
      "docs/study.md defines the figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study capacity-layers -o layers\n"
      "  lapidary study capacity-layers --data chats.jsonl --rank 4 -o chats\n"
      "  lapidary study capacity-layers -m ~/models/gemma-3-270m --layers 0,8,17 -t 1 -o three");
}

std::string summary(const LayerCapacityStudy& study) {
  std::string text =
      fmt::format("{:>6}{:>12}{:>11}{:>9}{:>9}{:>13}{:>8}{:>8}\n", "layer", "parameters",
                  "memorised", "share", "per p.", "not learnt", "loss", "time");
  for (const LayerCapacityRun& r : study.runs)
    text += fmt::format("{:>6}{:>12}{:>11.0f}{:>7.1f} %{:>9.3f}{:>13.0f}{:>8.3f}{:>6.0f} s\n",
                        layer_name(r), r.parameters, r.memorized_bits,
                        100 * r.memorized_bits / r.data_bits, r.bits_per_parameter(),
                        r.control_bits, r.loss, r.seconds);
  return text + kLowerBound + "\n";
}

int run(const Options& o) {
  apply(o.verbosity);
  LayerCapacityOptions options = o.capacity;
  options.folder = o.output.folder;
  options.model = model_folder(o.model, o.verbosity);
  options.data = o.data;
  const Interruption interruption;
  LayerCapacityStudy study;
  {
    ProgressBar bar("training", o.verbosity);
    study = study_layer_capacity(options, Watch{bar.fn(), interruption.token()});
  }
  write_going_on(o.output, "capacity-layers.json", to_json(study), layer_capacity_report(study),
                 summary(study));
  return kOk;
}

}  // namespace

void add_study_capacity_layers(Program& program, CLI::App& study) {
  add_verb<Options>(program, "capacity-layers", "Show which layers learn by heart", setup, run,
                    &study);
}

}  // namespace lapidary::cli
