// lapidary compare: how far models are apart, in what they predict and in what they answer.
#include <fmt/format.h>

#include "base/fail.h"
#include "bench_options.h"
#include "command_line.h"
#include "eval/reports.h"
#include "eval_options.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::vector<std::string> models;
  ModelOptions model;
  TextOptions text;
  WindowOptions windows;
  OutputOptions output;
  bool table = false;
  std::optional<std::string> prompts;  // a file; "": those that are built in
  int64_t tokens = 128;
  bool raw = false;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("MODELS", o.models, "Folders of models; the others are compared with the first")
      ->type_name("A B..")
      ->required();
  auto* table = verb.add_flag("--table", o.table,
                              "A row per model, any number of them: size, speed, perplexity, KLD");
  table->group("What");
  auto* prompts = verb.add_option_function<std::string>(
      "--prompts", [&o](const std::string& file) { o.prompts = file; },
      "Two models' greedy answers, to built-in prompts or those of a file: JSON lines with "
      "'prompt' and, if wanted, 'id' and 'category'");
  prompts->type_name("FILE.jsonl")->expected(0, 1)->group("What")->excludes(table);
  add_text(verb, o.text, true);
  add_windows(verb, o.windows);
  for (const char* name : {"--prompt", "--file", "--ids", "--no-bos", "--context", "--stride"})
    verb.get_option(name)->excludes(prompts);
  verb.add_option("-n,--predict,--max-tokens", o.tokens, "Tokens of an answer, at most (128)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->group("Answers")
      ->needs(prompts);
  verb.add_flag("--raw", o.raw, "Go on from the prompts as they are, without the chat format")
      ->group("Answers")
      ->needs(prompts);
  add_output(verb, o.output);
  verb.get_option("--output")->needs(table);
  add_threads(verb, o.model.threads, "Model");
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  verb.get_option("--adapter")->excludes(table);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Without --table or --prompts, A and B read a text, and what B predicts is held against what "
      "A does: KLD is the divergence of B's likelihoods from A's, 0 for a model and itself. "
      "Without "
      "-p, -f or --ids they read a built-in text. docs/quality.md defines the figures. An "
      "--adapter "
      "is B's alone. Ctrl-C prints what is done.\n"
      "\n"
      "Examples:\n"
      "  lapidary compare ~/models/gemma-3-1b-it /tmp/1b-4bit\n"
      "  lapidary compare bf16 q8 q4 --table -o csv\n"
      "  lapidary compare bf16 q4 --prompts --html answers.html\n"
      "  lapidary compare bf16 bf16 --adapter tuned --prompts\n"
      "  lapidary compare bf16 q4 --prompts mine.jsonl -n 64 --raw --json");
}

// Of the model at `index`: the first goes without adapters.
ModelOptions model_options(const Options& o, size_t index) {
  ModelOptions options = o.model;
  options.model = o.models[index];
  if (index == 0) options.adapters.clear();
  return options;
}

// ---- a text

int run_text(const Options& o) {
  const Subject subject = read_subject(o.text);
  std::vector<std::shared_ptr<const Engine>> engines;
  for (size_t i = 0; i < o.models.size(); ++i) {
    ModelOptions model = model_options(o, i);
    model.context = o.windows.context;
    engines.push_back(load_engine(model, o.verbosity));
  }
  say_built_in(subject, o.verbosity);
  // Either has the ids of the text; where both have a tokenizer they are the same.
  const Engine& speaker = *engines[engines[0]->has_tokenizer() ? 0 : 1];
  const EvalText text = eval_text(subject.input, speaker);
  const Interruption interruption;
  Comparison result;
  {
    ProgressBar bar("comparing", o.verbosity);
    result =
        compare(engines[0], engines[1], text, o.windows, Watch{bar.fn(), interruption.token()});
  }
  if (o.output.json) {
    Json json = comparison_json(result);
    json.update(windows_json(o.windows));
    json.update({{"text", subject.name}, {"model_a", o.models[0]}, {"model_b", o.models[1]}});
    out_json(json);
  } else {
    out(comparison_text(result));
  }
  return result.interrupted ? kInterrupted : kOk;
}

int run_models(const Options& o) {
  const Subject subject = read_subject(o.text);
  QualityOptions options{.engine = engine_options(o.model), .windows = o.windows};
  options.engine.context = o.windows.context;
  std::vector<std::filesystem::path> folders;
  for (size_t i = 0; i < o.models.size(); ++i)
    folders.push_back(model_folder(model_options(o, i), o.verbosity));
  const Interruption interruption;
  return run_table(
      subject, o.windows, o.verbosity, o.output, [&](const auto& text_of, const auto& on_row) {
        ProgressBar bar("measuring", o.verbosity);
        quality_table(folders, text_of, options, on_row, Watch{bar.fn(), interruption.token()});
      });
}

// ---- prompts

void print_pair(const PromptPair& pair) {
  std::string text = fmt::format("== {}{}: {}\n", pair.prompt.id,
                                 pair.prompt.category.empty() ? "" : ", " + pair.prompt.category,
                                 name_of(pair.likeness));
  for (const std::string& line : wrap(pair.prompt.text, kTerminalWidth)) text += line + "\n";
  out(text + "\n" +
      side_by_side(pair.a.text, pair.b.text, pair.common, kTerminalWidth, stdout_takes_colour()) +
      "\n");
}

std::string summary_text(const PromptModel& a, const PromptModel& b,
                         std::span<const PromptPair> pairs) {
  const PromptTally counts = tally(pairs);
  std::string text =
      fmt::format("{} prompts: {} identical, {} same start, {} different\n", pairs.size(),
                  counts.identical, counts.same_start, counts.different);
  text += fmt::format("{:<4} {:>12} {:>12} {:>12} {:>12}\n", "", "prompt t/s", "t/s", "memory",
                      "weights");
  for (const auto& [name, model] : {std::pair{"A", &a}, {"B", &b}})
    text += fmt::format("{:<4} {:>12.1f} {:>12.1f} {:>12} {:>12}\n", name,
                        model->prefill_tokens_per_second(), model->decode_tokens_per_second(),
                        bytes_text(model->memory), bytes_text(model->engine->weight_bytes()));
  return text;
}

// Unless --raw: where both have a chat format. One in a format and one without would not be asked
// the same.
bool use_chat_format(const Options& o, const PromptModel& a, const PromptModel& b) {
  if (o.raw) return false;
  for (const PromptModel* model : {&a, &b})
    if (!has_chat_format(*model->engine)) {
      if (!o.verbosity.quiet)
        note(fmt::format("lapidary: {} has no chat format: both go on from the prompts as they are",
                         model->engine->folder().string()));
      return false;
    }
  return true;
}

int run_prompts(const Options& o) {
  const std::vector<EvalPrompt> prompts =
      o.prompts->empty() ? built_in_prompts() : parse_prompts(read_file(*o.prompts), *o.prompts);
  PageFile page(o.output.html);
  const auto load = [&](size_t index) {
    const ModelOptions model = model_options(o, index);
    return load_prompt_model(model_folder(model, o.verbosity), engine_options(model));
  };
  PromptModel a = load(0), b = load(1);
  const bool chat_format = use_chat_format(o, a, b);
  const Interruption interruption;
  std::vector<PromptPair> pairs;
  const int code = until_interrupted(pairs, [&] {
    ProgressBar bar("answering", o.verbosity);
    compare_prompts(
        a, b, prompts, {.max_tokens = o.tokens, .chat_format = chat_format},
        [&](const PromptPair& pair) {
          pairs.push_back(pair);
          bar.clear();
          if (!o.output.json) print_pair(pair);
        },
        Watch{bar.fn(), interruption.token()});
  });
  if (o.output.json) {
    Json json = prompts_json(a, b, pairs);
    json.update({{"chat_format", chat_format}, {"interrupted", code == kInterrupted}});
    out_json(json);
  } else {
    out(summary_text(a, b, pairs));
  }
  page.write(prompts_report(this_host(), a, b, pairs));
  return code;
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.models.size() < 2 || (!o.table && o.models.size() > 2))
    fail_usage("{} model{} given, expected {}", o.models.size(), o.models.size() == 1 ? "" : "s",
               o.table ? "two or more" : "two; --table takes more");
  if (o.prompts) return run_prompts(o);
  if (o.table) return run_models(o);
  if (!o.output.html.empty()) fail_usage("--html: goes with --table or --prompts");
  return run_text(o);
}

}  // namespace

void add_compare(Program& program) {
  add_verb<Options>(program, "compare", "Measure how far models are apart", setup, run);
}

}  // namespace lapidary::cli
