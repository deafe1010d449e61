// lapidary study capacity-text: where learning a text by heart ends.
#include <fmt/format.h>

#include "lapidary/text_capacity_study.h"

#include "bench_options.h"
#include "capacity_verbs.h"
#include "study/text_capacity_file.h"
#include "study/text_capacity_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  TextCapacityOptions capacity;
  std::string text, tokenizer;
  GoingOn output{.folder = "capacity-text"};
};

void setup(CLI::App& verb, Options& o) {
  TextCapacityOptions& c = o.capacity;
  verb.add_option("-f,--file", o.text, "The text")->type_name("FILE")->required();
  verb.add_option("--tokenizer", o.tokenizer,
                  "The tokenizer of this model, as far as the text has its tokens (none: a token "
                  "is a byte)")
      ->type_name("MODEL");
  add_models(verb, c.sizes, c.layers);
  verb.add_option("--loads", c.loads,
                  "Amounts of text, in bits per parameter were its tokens uniform, ascending; all "
                  "of it comes last in any case (from 0.25 on, each twice the one before)")
      ->delimiter(',')
      ->type_name("LIST");
  verb.add_option("--held-out", c.held_out,
                  "Sequences that no model learns from; of the others as many are read to measure")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->capture_default_str();
  verb.add_option("--capacity", c.capacity, "Bits that a parameter holds, as study capacity says")
      ->type_name("X")
      ->check(between(0.01, 64.0))
      ->capture_default_str();
  add_steps(verb, c.steps, 2);
  add_recipe(verb, c.recipe, 4);
  add_going_on(verb, o.output);
  add_threads(verb, c.threads, "Speed");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Models of one size learn growing amounts of a text for as many steps each. While the text "
      "fits, it is learnt by heart; beyond, what all of it has in common must serve. What each "
      "model knows of its sequences is measured against the model that was trained on all, and "
      "its losses and completions against a part that none has seen. docs/study.md defines the "
      "figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study capacity-text -f text.txt -o growing\n"
      "  lapidary study capacity-text -f text.txt --sizes 10000,40000 --loads 1,2,4,8,16 -o two\n"
      "  lapidary study capacity-text -f text.txt --tokenizer models/tiny --sizes 200000");
}

std::string summary(const TextCapacityStudy& study) {
  std::string text = fmt::format("{:>10}{:>10}{:>8}{:>7}{:>7}{:>9}{:>9}{:>7}{:>6}{:>6}\n",
                                 "parameters", "sequences", "load", "loss", "unseen", "bits/seq",
                                 "extr. %", "unseen", "F1", "law");
  for (const TextCapacityOfSize& size : study.sizes)
    for (const TextCapacityRun& r : size.runs)
      text += fmt::format(
          "{:>10}{:>10}{:>8.2f}{:>7.3f}{:>7.3f}{:>9.1f}{:>9.1f}{:>7.1f}{:>6.2f}"
          "{:>6.2f}\n",
          r.parameters, r.sequences, r.load, r.train_loss, r.test_loss, r.memorized_bits,
          100 * r.extraction_rate, 100 * r.test_extraction_rate, r.membership.f1, r.expected_f1);
  for (const std::string& finding : text_capacity_findings(study)) text += finding + "\n";
  return text;
}

int run(const Options& o) {
  apply(o.verbosity);
  TextCapacityOptions options = o.capacity;
  options.folder = o.output.folder;
  options.text = o.text;
  if (!o.tokenizer.empty()) options.tokenizer = model_path(o.tokenizer);
  const Interruption interruption;
  TextCapacityStudy study;
  {
    ProgressBar bar("training", o.verbosity);
    study = study_text_capacity(options, Watch{bar.fn(), interruption.token()});
  }
  write_going_on(o.output, "capacity-text.json", to_json(study), text_capacity_report(study),
                 summary(study));
  return kOk;
}

}  // namespace

void add_study_capacity_text(Program& program, CLI::App& study) {
  add_verb<Options>(program, "capacity-text", "Show where learning a text by heart ends", setup,
                    run, &study);
}

}  // namespace lapidary::cli
