// lapidary detokenize: ids to text.
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lapidary/engine.h"

#include "base/fail.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  std::vector<std::string> ids;
  bool control = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("ids", o.ids, "Token ids (default: from standard input)")->type_name("ID");
  verb.add_flag("--control", o.control, "Spell out control tokens")->group("Output");
  verb.add_flag("--json", o.json, "Print {\"text\": \"...\"}")->group("Output");
  add_model(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "The text comes out byte for byte; a line end is added on a terminal only.\n"
      "\n"
      "Examples:\n"
      "  lapidary detokenize 2 651 6037\n"
      "  lapidary tokenize -f in.txt | lapidary detokenize > same-as-in.txt");
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.ids.empty() && ::isatty(STDIN_FILENO))
    throw Error(ErrorKind::kUsage, "no ids given", "give them as arguments or through a pipe");
  const std::vector<Token> ids = o.ids.empty()
                                     ? parse_ids(read_stdin(), "standard input")
                                     : parse_ids(fmt::format("{}", fmt::join(o.ids, " ")), "ids");
  const Tokenizer tokenizer = load_tokenizer(model_folder(o.model, o.verbosity));
  for (const Token id : ids)
    if (id >= tokenizer.size())
      fail("token id {} is not in the vocabulary of {}", id, tokenizer.size());
  const std::string text = tokenizer.decode(ids, o.control);
  if (o.json)
    out_json({{"text", text}});
  else
    out(text + (::isatty(STDOUT_FILENO) ? "\n" : ""));
  return kOk;
}

}  // namespace

void add_detokenize(Program& program) {
  add_verb<Options>(program, "detokenize", "Turn token ids into text", setup, run);
}

}  // namespace lapidary::cli
