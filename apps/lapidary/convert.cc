// lapidary convert: models in the formats of other programs.
#include "lapidary/convert.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "base/fail.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::string input;
  std::string output;
  std::string format;
  GgufOptions gguf;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("IN", o.input, "The folder of the model, or its name in the hub's cache")
      ->type_name("DIR")
      ->required();
  verb.add_option("-o,--output", o.output, "The file to write")
      ->type_name("FILE")
      ->required()
      ->group("Output");
  choices(verb.add_option("--to", o.format, "The format (default: by the ending of FILE)")
              ->group("Output"),
          {"gguf"});
  choices(verb.add_option("--type", o.gguf.type,
                          "What matrices are stored as (f16); q8_0 and q4_0 take the embedding "
                          "too, norms are always f32")
              ->group("Output"),
          {"f32", "f16", "bf16", "q8_0", "q4_0"});
  verb.add_flag("--force", o.gguf.overwrite, "Replace FILE if it is there")->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_threads(verb, o.gguf.threads, "General");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "GGUF is what llama.cpp reads. The tokenizer goes into the file; for a folder without one a "
      "placeholder does, with which token ids work and text means nothing.\n"
      "\n"
      "Examples:\n"
      "  lapidary convert ~/models/gemma-3-1b-it -o 1b.gguf\n"
      "  lapidary convert models/tiny -o tiny.gguf --to gguf --type q8_0");
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.format.empty() && !o.output.ends_with(".gguf"))
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: the format is not clear from the name", o.output),
                "say --to gguf");
  const Interruption interruption;
  const Stopwatch clock;
  GgufSummary made;
  {
    ProgressBar bar("writing", o.verbosity);
    made =
        export_gguf(model_path(o.input), o.output, o.gguf, Watch{bar.fn(), interruption.token()});
  }
  const double seconds = clock.seconds();
  if (o.json)
    out_json({{"input", o.input},
              {"output", o.output},
              {"format", "gguf"},
              {"type", o.gguf.type},
              {"vocabulary", made.placeholder_vocabulary ? "placeholder" : "tokenizer"},
              {"tensors", made.tensors},
              {"bytes", made.bytes},
              {"seconds", seconds}});
  else if (!o.verbosity.quiet)
    note(fmt::format("{}: {} tensors, {} in {:.1f} s", o.output, made.tensors,
                     bytes_text(made.bytes), seconds));
  return kOk;
}

}  // namespace

void add_convert(Program& program) {
  add_verb<Options>(program, "convert", "Write a model in the format of another program", setup,
                    run);
}

}  // namespace lapidary::cli
