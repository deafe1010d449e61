// lapidary tokenize: text to ids.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lapidary/engine.h"

#include "io/printable.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  bool literal = false;
  bool pieces = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, false);
  verb.add_flag("--literal", o.literal, "Take the spelling of control tokens as ordinary text")
      ->group("Input");
  auto* pieces = verb.add_flag("--pieces", o.pieces, "One line per token: its id and its spelling");
  pieces->group("Output");
  verb.add_flag("--json", o.json, "Print {\"ids\": [...], \"count\": N}")
      ->group("Output")
      ->excludes(pieces);
  add_model(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "A folder with tokenizer.json or tokenizer.model is enough.\n"
      "\n"
      "Examples:\n"
      "  lapidary tokenize -p \"To be, or not to be\" --pieces\n"
      "  lapidary tokenize -m ~/models/gemma-3-1b-it -f book.txt --json");
}

int run(const Options& o) {
  apply(o.verbosity);
  const Input input = read_input(o.text);
  const Tokenizer tokenizer = load_tokenizer(model_folder(o.model, o.verbosity));
  std::vector<Token> ids =
      tokenizer.encode(input.text, o.literal ? ControlText::kLiteral : ControlText::kParse);
  if (input.bos) ids.insert(ids.begin(), tokenizer.bos());
  if (o.json) {
    out_json({{"ids", ids}, {"count", ids.size()}});
  } else if (o.pieces) {
    std::string lines;
    for (const Token id : ids)
      lines += fmt::format("{:>7}  {}\n", id, printable(tokenizer.piece(id)));
    out(lines);
  } else {
    out(fmt::format("{}\n", fmt::join(ids, " ")));
  }
  return kOk;
}

}  // namespace

void add_tokenize(Program& program) {
  add_verb<Options>(program, "tokenize", "Turn text into token ids", setup, run);
}

}  // namespace lapidary::cli
