// lapidary study memorization: what a model knows by heart of what it was trained on.
#include <fmt/format.h>

#include "lapidary/memorization_study.h"

#include "bench_options.h"
#include "study/memorization_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  std::string reference;
  std::string data, held_out;
  MemorizationOptions memorization;
  StudyOutput output{.folder = "memorization"};
};

void setup(CLI::App& verb, Options& o) {
  MemorizationOptions& m = o.memorization;
  add_model(verb, o.model);
  verb.add_option("--reference", o.reference,
                  "A model that has not seen the data: the one that was fine-tuned, as a rule")
      ->type_name("MODEL")
      ->required();
  verb.add_option("--data", o.data, "What the model was trained on, as lapidary train takes it")
      ->type_name("PATH")
      ->required();
  verb.add_option("--held-out", o.held_out, "Data of the same kind that neither has seen")
      ->type_name("PATH")
      ->required();
  verb.add_option("--sequence-length", m.sequence_length,
                  "Tokens of a sequence; longer documents are truncated")
      ->type_name("N")
      ->check(between<int64_t>(2, 1 << 20))
      ->capture_default_str();
  verb.add_flag("--prompt-loss", m.prompt_loss, "Prompts and users' turns count too");
  verb.add_option("--prefix", m.prefix, "Tokens given for extraction (half of each sequence)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20));
  verb.add_option("--sample", m.sample, "Sequences of either side, at most, evenly spread")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 30))
      ->capture_default_str();
  add_study_output(verb, o.output);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "How many bits of each sequence the model knows beyond what the reference knows of it, how "
      "many it completes word for word, and how well its losses give away what it was trained on. "
      "docs/study.md defines the figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study memorization -m run/model --reference base --data chats.jsonl --held-out "
      "others.jsonl\n"
      "  lapidary study memorization -m base --adapter run/adapter --reference base --data "
      "chats.jsonl --held-out others.jsonl");
}

std::string summary(const MemorizationStudy& s) {
  const auto line = [](const char* name, const std::vector<SequenceMemory>& side) {
    return fmt::format(
        "{:<11}{:>6} sequences  {:>8.2f} bits memorised of each  {:>5.1f} % extracted\n", name,
        side.size(), mean_bits(side), 100 * extraction_rate(side));
  };
  const auto told = [](const char* name, const Membership& m) {
    return fmt::format("membership by {}: AUC {:.3f}, F1 {:.3f}\n", name, m.auc, m.f1);
  };
  return line("trained on", s.members) + line("held out", s.others) + told("loss", s.by_loss) +
         told("gain", s.by_gain) +
         fmt::format("the law expects F1 {:.3f} of a model trained from scratch\n", s.expected_f1);
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.output);
  const auto model = load_engine(o.model, o.verbosity);
  ModelOptions other = o.model;
  other.model = o.reference;
  other.adapters.clear();
  const auto reference = load_engine(other, o.verbosity);
  MemorizationOptions options = o.memorization;
  options.data = o.data;
  options.held_out = o.held_out;
  const Interruption interruption;
  MemorizationStudy study;
  {
    ProgressBar bar("reading", o.verbosity);
    study = study_memorization(model, reference, options, Watch{bar.fn(), interruption.token()});
  }
  write_study(o.output, "memorization.json", to_json(study),
              memorization_report(study, *model, *reference), summary(study));
  return kOk;
}

}  // namespace

void add_study_memorization(Program& program, CLI::App& study) {
  add_verb<Options>(program, "memorization", "Show what a model knows by heart of its data", setup,
                    run, &study);
}

}  // namespace lapidary::cli
