// lapidary score: how surprised a model is by a text.
#include "lapidary/score.h"

#include <cmath>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/fail.h"
#include "io/safetensors.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  std::string logits;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  verb.add_option("--logits", o.logits,
                  "Write all logits to this safetensors file: 'logits', f32 [tokens, vocabulary]")
      ->type_name("FILE")
      ->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "nll is the mean of -ln p(token | tokens before) over all tokens but the first, in nats;\n"
      "ppl is its exponential.\n"
      "\n"
      "Examples:\n"
      "  lapidary score -p \"To be, or not to be\"\n"
      "  lapidary score -m ~/models/gemma-3-1b-it -f book.txt -c 8192 --json\n"
      "  lapidary score --ids 2,17,5 --compute exact --logits logits.safetensors");
}

int run(const Options& o) {
  apply(o.verbosity);
  const auto engine = load_engine(o.model, o.verbosity);
  const std::vector<Token> tokens = read_tokens(o.text, *engine);
  if (tokens.size() < 2 && o.logits.empty())
    fail("{} token{} given; a score needs at least two, one to predict from another", tokens.size(),
         tokens.size() == 1 ? "" : "s");
  std::optional<SafetensorsWriter> writer;
  const auto write = [&](std::span<const float> logits) {
    // Made at the first row, when everything about the input is known to be in order.
    if (!writer)
      writer.emplace(
          o.logits,
          std::vector<TensorDeclaration>{
              {"logits", DType::kF32, {std::ssize(tokens), engine->config().vocab_size}}});
    writer->write(std::as_bytes(logits));
  };
  const Interruption interruption;
  const Stopwatch clock;
  Session session(engine, o.model.context);
  Score result;
  {
    ProgressBar bar("scoring", o.verbosity);
    result = score(session, tokens,
                   o.logits.empty() ? std::function<void(std::span<const float>)>() : write,
                   Watch{bar.fn(), interruption.token()});
  }
  if (writer) writer->finish();
  const Json nll = result.nll ? Json(*result.nll) : Json(nullptr);
  const Json ppl = result.nll ? Json(std::exp(*result.nll)) : Json(nullptr);
  if (o.json)
    out_json({{"nll", nll},
              {"ppl", ppl},
              {"tokens", result.tokens},
              {"predicted", result.predicted},
              {"seconds", clock.seconds()}});
  else
    out(fmt::format("nll {} nats per token, ppl {}, {} tokens\n", nll.dump(), ppl.dump(),
                    result.tokens));
  return kOk;
}

}  // namespace

void add_score(Program& program) {
  add_verb<Options>(program, "score", "Measure how well a model predicts a text", setup, run);
}

}  // namespace lapidary::cli
