// lapidary bench decode: ways of decoding beside each other.
#include <cmath>
#include <fstream>

#include "lapidary/decoding_eval.h"

#include "base/fail.h"
#include "bench_options.h"
#include "decoding.h"
#include "eval/reports.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  OutputOptions output;
  DecodingOptions bench;
  DecodingFlags flags;
  std::string prompts;
  int64_t limit = 0;
  std::vector<std::string> ways = {"plain", "ngram", "set-block"};
  std::vector<double> gammas = {0, 0.1, 0.35, 1, INFINITY};
  std::vector<int64_t> blocks = {4, 8, 16};
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("--prompts", o.prompts,
                  "JSON lines with \"prompt\" and, where the answer is known, \"completion\" "
                  "(default: built-in ones)")
      ->type_name("FILE.jsonl")
      ->group("Measuring");
  verb.add_option("--limit", o.limit, "Only so many of the prompts, from the first on")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 30))
      ->group("Measuring");
  verb.add_flag("--chat", o.bench.chat_format, "Put the prompts in the chat format")
      ->group("Measuring");
  verb.add_option("-n,--max-tokens", o.bench.max_tokens, "Cut an answer off after this many (128)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->group("Measuring");
  verb.add_option("-r,--repetitions", o.bench.repetitions, "Rounds of all ways (3)")
      ->type_name("N")
      ->check(between<int>(1, 1000))
      ->group("Measuring");
  verb.add_option("--temp", o.bench.sampling.temperature,
                  "Temperature; 0 takes the likeliest token (0)")
      ->type_name("T")
      ->group("Measuring");
  verb.add_option("--seed", o.bench.sampling.seed, "The same seed draws the same tokens (0)")
      ->type_name("N")
      ->group("Measuring");
  verb.add_option("--ways", o.ways,
                  "plain, ngram, draft, set-block, block-draft (plain,ngram,set-block)")
      ->type_name("WAY,...")
      ->delimiter(',')
      ->check(
          CLI::IsMember({"plain", "ngram", "draft", "set-block", "block-draft"}).description(""))
      ->group("Decoding");
  verb.add_option("--gammas", o.gammas, "Of set-block: bounds on entropy (0,0.1,0.35,1,inf)")
      ->type_name("NATS,...")
      ->delimiter(',')
      ->group("Decoding");
  verb.add_option("--blocks", o.blocks, "Of set-block and block-draft: sizes of blocks (4,8,16)")
      ->type_name("N,...")
      ->delimiter(',')
      ->group("Decoding");
  add_decoding_details(verb, o.flags);
  add_threads(verb, o.model.threads, "Measuring");
  add_output(verb, o.output);
  add_model(verb, o.model);
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Ordinary decoding is always measured, and what the others are compared with.\n"
      "\n"
      "Examples:\n"
      "  lapidary bench decode -m sbd-model --prompts tasks.jsonl --blocks 8 --html decode.html\n"
      "  lapidary bench decode -m 4b-4bit --ways ngram,draft --model-draft 270m-4bit --chat");
}

std::vector<DecodeOptions> ways_of(const Options& o, const Engine& engine) {
  std::vector<DecodeOptions> ways = {{}};
  for (const std::string& name : o.ways) {
    DecodingFlags flags = o.flags;
    flags.mode = name;
    if (name == "plain") continue;
    const DecodeOptions way = resolve(flags, engine, o.model, o.verbosity);
    const bool blocks = name == "set-block" || name == "block-draft";
    for (const int64_t block : blocks ? o.blocks : std::vector{way.set_block.block}) {
      if (blocks) warn_of_block(block, engine);
      for (const double gamma : name == "set-block" ? o.gammas : std::vector{way.set_block.gamma}) {
        ways.push_back(way);
        ways.back().set_block.block = block;
        ways.back().set_block.gamma = gamma;
      }
    }
  }
  return ways;
}

int run(const Options& o) {
  apply(o.verbosity);
  const bool draft = std::ranges::find(o.ways, "draft") != o.ways.end();
  if (draft == o.flags.draft_model.empty())
    fail_usage("--ways draft and --model-draft go together");
  check_used(o.flags, "--ways", o.ways);
  std::vector<EvalPrompt> prompts =
      o.prompts.empty() ? built_in_prompts() : parse_prompts(read_file(o.prompts), o.prompts);
  if (o.limit > 0 && o.limit < std::ssize(prompts)) prompts.resize(static_cast<size_t>(o.limit));
  const auto engine = load_engine(o.model, o.verbosity);
  const std::vector<DecodeOptions> ways = ways_of(o, *engine);
  PageFile page(o.output.html);
  const Interruption interruption;
  std::vector<DecodingResult> results;
  {
    ProgressBar bar("answering", o.verbosity);
    results =
        measure_decoding(engine, prompts, ways, o.bench, Watch{bar.fn(), interruption.token()});
  }
  put(decoding_report(this_host(), describe_model(*engine), results), o.output, page);
  return kOk;
}

}  // namespace

void add_bench_decode(Program& program, CLI::App& bench) {
  add_verb<Options>(program, "decode", "Compare ways of decoding: speed, passes, and answers",
                    setup, run, &bench);
}

}  // namespace lapidary::cli
