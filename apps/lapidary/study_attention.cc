// lapidary study attention: what heads look at.
#include <cmath>
#include <optional>
#include <tuple>

#include <fmt/format.h>

#include "lapidary/attention_study.h"

#include "base/fail.h"
#include "base/rng.h"
#include "bench_options.h"
#include "study/attention_lengths_report.h"
#include "study/attention_report.h"
#include "study/pieces_report.h"
#include "study/reach_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  int64_t repeat = 0;
  PatternSaving patterns;
  std::string pattern_file;
  std::vector<std::string> lengths;
  bool localize = false;
  int64_t piece = 0;
  StudyOutput output{.folder = "attention"};
};

void add_experiments(CLI::App& verb, Options& o) {
  auto* lengths = verb.add_option("--lengths", o.lengths,
                                  "Instead, what the same queries look at where so many tokens may "
                                  "be seen: 128,512,2048 or 128-8192*2")
                      ->type_name("N,N")
                      ->allow_extra_args(false)
                      ->group("Experiments");
  auto* localize =
      verb.add_flag("--localize", o.localize,
                    "Instead, the loss with global layers made local and local ones global, one by "
                    "one and all together")
          ->group("Experiments");
  verb.add_option("--piece", o.piece,
                  "Tokens that --localize reads at once (four windows of local layers)")
      ->type_name("N")
      ->check(between<int64_t>(3, 1 << 24))
      ->needs(localize)
      ->group("Experiments");
  lengths->excludes(localize);
}

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  verb.add_option("--random-repeat", o.repeat,
                  "Instead of a text, this many random tokens, twice: shows induction heads")
      ->type_name("N")
      ->check(between<int64_t>(2, 1 << 20));
  add_experiments(verb, o);
  auto* save = verb.add_option("--save-patterns", o.pattern_file,
                               "Write all weights to this safetensors file too: "
                               "blocks.N.attn.hook_pattern, f32 [heads, tokens, tokens]")
                   ->type_name("FILE")
                   ->group("Output");
  for (const auto& [flag, list, what] :
       {std::tuple{"--layers", &o.patterns.layers, "Layers of --save-patterns (all)"},
        std::tuple{"--heads", &o.patterns.heads, "Heads of --save-patterns (all)"}})
    verb.add_option(flag, *list, what)
        ->type_name("N,N")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->needs(save)
        ->group("Output");
  add_study_output(verb, o.output);
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "The text is read once; weights are computed again beside the model from its queries and "
      "keys, a block of queries at a time, so that long texts need little memory. The experiments "
      "cut the text into pieces and read each several times. docs/study.md defines the figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study attention -p \"The cat sat on the mat because it was tired.\"\n"
      "  lapidary study attention -m ~/models/gemma-3-1b-it -f book.txt -o book\n"
      "  lapidary study attention -m ~/models/gemma-3-1b-it --random-repeat 64 --json\n"
      "  lapidary study attention -f text.txt --save-patterns fox.safetensors --layers 0,5\n"
      "  lapidary study attention -m ~/models/gemma-3-1b-it -f book.txt --lengths 128-8192*4\n"
      "  lapidary study attention -f book.txt --localize");
}

// <bos>, and the same random tokens twice.
std::vector<Token> repeated(const Engine& engine, int64_t count) {
  constexpr int64_t kFirst = 256;  // beyond the control tokens
  const int64_t vocabulary = engine.config().vocab_size;
  const CounterRng rng(42);
  std::vector<Token> tokens = {engine.has_tokenizer() ? engine.tokenizer().bos() : 2};
  for (int64_t i = 0; i < 2 * count; ++i)
    tokens.push_back(static_cast<Token>(
        kFirst + static_cast<int64_t>(rng.bits(static_cast<uint64_t>(i % count)) %
                                      static_cast<uint64_t>(vocabulary - kFirst))));
  return tokens;
}

// Of all heads together a page holds at most this many pixels, a byte each.
int64_t picture_size(const Config& config) {
  constexpr double kPixels = 2.2e6;
  const double heads = double{1} * config.num_hidden_layers * config.num_attention_heads;
  return std::clamp<int64_t>(static_cast<int64_t>(std::sqrt(kPixels / heads)), 8, 256);
}

std::string summary(const AttentionStudy& study) {
  std::string text = fmt::format("{:>5} {:<7}{:>8}{:>10}{:>8}{:>8}{:>8}{:>11}\n", "layer", "keys",
                                 "entropy", "distance", "first", "before", "self", "induction");
  const size_t heads = study.heads.size() / study.layers.size();
  for (const LayerAttention& layer : study.layers) {
    HeadFigures mean;
    double induction = 0;
    const auto share = 1 / static_cast<double>(heads);
    for (size_t i = 0; i < heads; ++i) {
      const HeadFigures& h = study.heads[static_cast<size_t>(layer.layer) * heads + i];
      mean.entropy += share * h.entropy;
      mean.distance += share * h.distance;
      mean.sink += share * h.sink;
      mean.previous += share * h.previous;
      mean.self += share * h.self;
      induction = std::max(induction, h.induction.value_or(NAN));
    }
    text += fmt::format("{:>5} {:<7}{:>8.2f}{:>10.1f}{:>8.3f}{:>8.3f}{:>8.3f}{:>11}\n", layer.layer,
                        layer.sliding ? "local" : "global", mean.entropy, mean.distance, mean.sink,
                        mean.previous, mean.self,
                        study.heads[0].induction ? fmt::format("{:.3f}", induction) : "-");
  }
  return text;
}

std::string summary(const AttentionByLength& study) {
  std::string text =
      fmt::format("{:>6} {:<7}{:>8}{:>9}{:>10}{:>8}{:>8}{:>11}\n", "tokens", "layers", "entropy",
                  "keys", "distance", "first", "before", "induction");
  for (const AttentionAtLength& at : study.kinds)
    text += fmt::format("{:>6} {:<7}{:>8.2f}{:>9.1f}{:>10.1f}{:>8.3f}{:>8.3f}{:>11}\n", at.length,
                        at.sliding ? "local" : "global", at.entropy.mean, at.effective_keys.mean,
                        at.distance.mean, at.sink.mean, at.previous.mean,
                        at.best_induction ? fmt::format("{:.3f}", at.best_induction->mean) : "-");
  return text;
}

std::string summary(const ReachStudy& study) {
  std::string text = fmt::format("{:<32}{:>9}  added, nats per token\n{:<32}{:>9.4f}\n", "change",
                                 "loss", "none", study.nll.mean);
  for (const ReachChange& change : study.changes)
    text += fmt::format("{:<32}{:>9.4f}  {}\n", name_of(change), change.nll.mean,
                        measured(change.gain, 4));
  return text;
}

// What a study found, before it is written.
struct Findings {
  const char* name;  // of the file of figures
  Json figures;
  Report report;
  std::string summary;
};

Findings look(const Options& o, const std::shared_ptr<const Engine>& engine,
              const std::vector<Token>& tokens, const Watch& watch) {
  if (o.localize) {
    const ReachStudy study = study_reach(engine, tokens, {.piece_tokens = o.piece}, watch);
    return {"localize.json", to_json(study), reach_report(study, *engine), summary(study)};
  }
  if (!o.lengths.empty()) {
    const AttentionByLength study = attention_by_length(
        engine, tokens, {.lengths = parse_numbers(o.lengths, "--lengths", 4)}, watch);
    return {"lengths.json", to_json(study), attention_lengths_report(study, *engine),
            summary(study)};
  }
  AttentionOptions options{.context = o.model.context,
                           .picture_size = picture_size(engine->config()),
                           .patterns = o.patterns};
  options.patterns.file = o.pattern_file;
  const AttentionStudy study = study_attention(engine, tokens, options, watch);
  return {"attention.json", to_json(study), attention_report(study, *engine), summary(study)};
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.output);
  const bool experiment = o.localize || !o.lengths.empty();
  if (experiment && (o.repeat > 0 || !o.pattern_file.empty() || o.model.context > 0))
    fail_usage("--lengths and --localize take no --random-repeat, --save-patterns or -c");
  if (o.repeat > 0 && (o.text.prompt || !o.text.file.empty() || o.text.ids))
    fail_usage("--random-repeat: takes the place of -p, -f and --ids");
  const Input input = o.repeat > 0 ? Input{} : read_input(o.text);
  const auto engine = load_engine(o.model, o.verbosity);
  const std::vector<Token> tokens =
      o.repeat > 0 ? repeated(*engine, o.repeat) : tokens_of(input, *engine);
  const Interruption interruption;
  std::optional<ProgressBar> bar(std::in_place, "reading", o.verbosity);
  const Findings found = look(o, engine, tokens, Watch{bar->fn(), interruption.token()});
  bar.reset();
  Json figures = subject_json(*engine, tokens);
  figures.update(found.figures);
  write_study(o.output, found.name, figures, found.report, found.summary);
  return kOk;
}

}  // namespace

void add_study_attention(Program& program, CLI::App& study) {
  add_verb<Options>(program, "attention", "Show what the heads look at in a text", setup, run,
                    &study);
}

}  // namespace lapidary::cli
