// lapidary generate: goes on from a text.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/system.h"
#include "changes.h"
#include "decoding.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

constexpr int64_t kDefaultTokens = 256;

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  SamplingFlags sampling;
  DecodingFlags decoding;
  bool show_blocks = false;
  std::optional<int64_t> tokens;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  Changes changes;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  verb.add_option("-n,--predict,--max-tokens", o.tokens,
                  "Tokens to make; -1: until the end of the answer or of the context (256, or what "
                  "the context has room for)")
      ->type_name("N")
      ->group("Output");
  verb.add_option("--stop", o.stop, "End before this text; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group("Output");
  verb.add_flag("--ignore-eos", o.ignore_eos, "Go on past the end of the answer")->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document instead of text")->group("Output");
  add_sampling(verb, o.sampling);
  add_decoding(verb, o.decoding);
  verb.add_flag("--show-blocks", o.show_blocks,
                "Show each block after each pass, on stderr (--decode set-block)")
      ->group("Decoding");
  add_changes(verb, o.changes);
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "The text goes on as it is, without a chat format; see lapidary chat for that. Changes are "
      "made to activations at the points that lapidary study activations lists, of the prompt and "
      "of what is made.\n"
      "\n"
      "Examples:\n"
      "  lapidary generate -p \"ROMEO:\" -n 80\n"
      "  lapidary generate -m ~/models/gemma-3-1b-it -f story.txt --temp 0\n"
      "  lapidary generate -m 1b-4bit --adapter style --adapter facts:0.5 -p \"Dear\"\n"
      "  git diff | lapidary generate -m ~/models/gemma-3-4b-it -n -1 --stop END\n"
      "  lapidary generate -f report.txt --decode ngram --draft-max 12\n"
      "  lapidary generate -p Yes --add blocks.3.hook_resid_post=joy.safetensors\n"
      "  lapidary generate --ids 2,651,6037 -n 5 --temp 0 --json");
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.tokens && *o.tokens < -1)
    fail_usage("-n: {} given, expected -1 (until the end) or more", *o.tokens);
  check(o.sampling);
  check(o.decoding);
  if (o.show_blocks && o.decoding.mode != "set-block")
    fail_usage("--show-blocks: only with --decode set-block");
  const Input input = read_input(o.text);
  const Stopwatch load_clock;
  const auto engine = load_engine(o.model, o.verbosity);
  const double load_seconds = load_clock.seconds();
  const std::vector<Token> prompt = tokens_of(input, *engine);

  GenerateOptions options;
  options.sampling = resolve(o.sampling, *engine);
  options.decode = resolve(o.decoding, *engine, o.model, o.verbosity);
  if (o.show_blocks)
    options.on_block = [&](const BlockView& view) { note(block_text(view, *engine)); };
  options.stop = o.stop;
  options.ignore_eos = o.ignore_eos;
  Session session(engine, o.model.context);
  session.set_tap(tap_of(o.changes, engine->config()));
  const int64_t room = std::max<int64_t>(session.context() - std::ssize(prompt), 0);
  options.max_tokens = o.tokens.value_or(std::min(kDefaultTokens, room));

  const Interruption interruption;
  const bool stream = !o.json && !o.show_blocks && engine->has_tokenizer();
  Generation made;
  {
    ProgressBar bar("reading the prompt", o.verbosity);
    made =
        generate(session, prompt, options, stream ? out : std::function<void(std::string_view)>(),
                 Watch{bar.fn(), interruption.token()});
  }
  if (o.json) {
    Json json = {{"prompt_tokens", made.prompt_tokens},
                 {"tokens", made.tokens},
                 {"text", made.text},
                 {"finish_reason", name_of(made.finish_reason)}};
    add_passes(json, made, options.decode.mode);
    json["timings"] = timings_json(made, load_seconds);
    json["peak_rss_bytes"] = peak_rss_bytes();
    out_json(json);
  } else {
    if (!engine->has_tokenizer())
      out(fmt::format("{}", fmt::join(made.tokens, " ")));
    else if (!stream)
      out(made.text);
    out("\n");
    if (!o.verbosity.quiet)
      note(dim(fmt::format("load {:.2f} s; {}", load_seconds, timings_text(made))));
  }
  return made.finish_reason == FinishReason::kInterrupted ? kInterrupted : kOk;
}

}  // namespace

void add_generate(Program& program) {
  add_verb<Options>(program, "generate", "Go on from a text", setup, run);
}

}  // namespace lapidary::cli
