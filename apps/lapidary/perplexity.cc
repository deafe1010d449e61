// lapidary perplexity: how well a model predicts a long text.
#include <fmt/format.h>

#include "base/fail.h"
#include "eval/reports.h"
#include "eval_options.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  WindowOptions windows;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  add_windows(verb, o.windows);
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_model(verb, o.model);
  add_threads(verb, o.model.threads, "Model");
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Every token of the text is predicted once, from those before it in its window, which begins "
      "with <bos>. docs/quality.md says how, and what ± means. Ctrl-C prints what is done.\n"
      "\n"
      "Examples:\n"
      "  lapidary perplexity -m ~/models/gemma-3-1b-it -f book.txt\n"
      "  lapidary perplexity -f book.txt -c 2048 --stride 1024 --json\n"
      "  head -c 20000 book.txt | lapidary perplexity");
}

int run(const Options& o) {
  apply(o.verbosity);
  const Input input = read_input(o.text);
  ModelOptions model = o.model;
  model.context = o.windows.context;
  const auto engine = load_engine(model, o.verbosity);
  const EvalText text = eval_text(input, *engine);
  const Interruption interruption;
  Perplexity result;
  {
    ProgressBar bar("predicting", o.verbosity);
    result = perplexity(engine, text, o.windows, Watch{bar.fn(), interruption.token()});
  }
  if (o.json) {
    Json json = perplexity_json(result);
    json.update(windows_json(o.windows));
    json["model"] = engine->folder().string();
    out_json(json);
  } else {
    out(perplexity_text(result));
  }
  return result.interrupted ? kInterrupted : kOk;
}

}  // namespace

void add_perplexity(Program& program) {
  add_verb<Options>(program, "perplexity", "Measure how well a model predicts a long text", setup,
                    run);
}

}  // namespace lapidary::cli
