// lapidary study diff: what a fine-tuning or a quantisation changed.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lapidary/model_diff.h"

#include "base/fail.h"
#include "eval_options.h"
#include "study/diff_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

constexpr size_t kBuiltInTokens = 512;  // of the built-in text

struct Options {
  Verbosity verbosity;
  std::vector<std::string> models;
  ModelOptions model;
  TextOptions text;
  bool swap_layers = false;
  StudyOutput output{.folder = "diff"};
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("MODELS", o.models,
                  "Folders of the model before and the one after; with --adapter one will do")
      ->type_name("A [B]")
      ->required();
  add_text(verb, o.text, true);
  verb.add_flag("--swap-layers", o.swap_layers,
                "What A's loss is with one layer of B, for each: half of A again each time")
      ->group("Besides");
  add_study_output(verb, o.output);
  add_threads(verb, o.model.threads, "Model");
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Size, rank and direction of what changed in every matrix, how far the residual streams and "
      "the attention of the two are apart after each layer on a text, and what that does to its "
      "loss. An --adapter is B's alone. Without -p, -f or --ids they read the first 512 tokens of "
      "a built-in text. docs/study.md defines the figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study diff gemma-3-1b-pt gemma-3-1b-it -o instructed\n"
      "  lapidary study diff ~/models/gemma-3-1b-it 1b-4bit -f text.txt --swap-layers\n"
      "  lapidary study diff 1b-4bit --adapter tuned -f text.txt --json");
}

std::string summary(const ModelDiff& diff) {
  std::string text =
      fmt::format("{:>5} {:<7}{:>10}{:>10}{:>10}{:>11}{}\n", "layer", "keys", "weights", "stream",
                  "1 - CKA", "attention", diff.swapped.empty() ? "" : "    swapped");
  for (const LayerDiff& layer : diff.text.layers) {
    double attention = 0;
    for (const double head : layer.attention)
      attention += head / static_cast<double>(layer.attention.size());
    text += fmt::format("{:>5} {:<7}{:>10.3g}{:>10.3g}{:>10.3g}{:>11.3g}", layer.layer,
                        layer.sliding ? "local" : "global", diff.size(layer.layer), layer.stream,
                        1 - layer.similarity, attention);
    if (!diff.swapped.empty())
      text += fmt::format("{:>+11.4f}",
                          diff.swapped[static_cast<size_t>(layer.layer)] - diff.text.nll_a);
    text += "\n";
  }
  return text +
         fmt::format(
             "loss {:.4f} -> {:.4f} nats per token, KLD {:.4g}, top-1 the same at {:.1f} %\n",
             diff.text.nll_a, diff.text.nll_b, diff.text.kld, 100 * diff.text.top1);
}

std::vector<Token> text_of(const Subject& subject, const Engine& engine, const Verbosity& v) {
  std::vector<Token> tokens = tokens_of(subject.input, engine);
  if (subject.name != "built-in") return tokens;
  tokens.resize(std::min(tokens.size(), kBuiltInTokens));
  if (!v.quiet)
    note(fmt::format("lapidary: no -f given, using the first {} tokens of the built-in text",
                     tokens.size()));
  return tokens;
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.output);
  if (o.models.size() > 2 || (o.models.size() < 2 && o.model.adapters.empty()))
    fail_usage("{} model{} given, expected two, or one and --adapter", o.models.size(),
               o.models.size() == 1 ? "" : "s");
  const Subject subject = read_subject(o.text);
  ModelOptions before = o.model, after = o.model;
  before.model = o.models.front();
  before.adapters.clear();
  after.model = o.models.back();
  const auto a = load_engine(before, o.verbosity), b = load_engine(after, o.verbosity);
  const std::vector<Token> tokens = text_of(subject, a->has_tokenizer() ? *a : *b, o.verbosity);
  const Interruption interruption;
  ModelDiff diff;
  {
    ProgressBar bar("reading", o.verbosity);
    diff.text = diff_text(a, b, tokens, Watch{bar.fn(), interruption.token()});
  }
  if (o.swap_layers) {
    ProgressBar bar("swapping", o.verbosity);
    diff.swapped = swap_layers(a, b, tokens, Watch{bar.fn(), interruption.token()});
  }
  {
    ProgressBar bar("weights", o.verbosity);
    diff.weights = diff_weights(*a, *b, Watch{bar.fn(), interruption.token()});
  }
  const auto name = [](const Engine& engine) { return engine.folder().filename().string(); };
  const std::string title = o.model.adapters.empty()
                                ? fmt::format("From {} to {}", name(*a), name(*b))
                                : fmt::format("From {} to {} with {}", name(*a), name(*b),
                                              fmt::join(o.model.adapters, " and "));
  Json figures = {{"model_a", o.models.front()},
                  {"model_b", o.models.back()},
                  {"adapters", o.model.adapters},
                  {"text", subject.name},
                  {"tokens", tokens}};
  figures.update(to_json(diff));
  write_study(o.output, "diff.json", figures, diff_report(diff, title, *a, *b, tokens),
              summary(diff));
  return kOk;
}

}  // namespace

void add_study_diff(Program& program, CLI::App& study) {
  add_verb<Options>(program, "diff", "Show what a fine-tuning or a quantisation changed", setup,
                    run, &study);
}

}  // namespace lapidary::cli
