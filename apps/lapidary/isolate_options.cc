#include "isolate_options.h"

#include <algorithm>
#include <filesystem>

#include "base/fail.h"

namespace lapidary::cli {

void add_examples(CLI::App& verb, PlanFlags& flags) {
  verb.add_option("FILE", flags.files, "Examples, or folders of them")
      ->type_name("FILE..")
      ->required();
  verb.add_option("--text-fields", flags.text_fields,
                  "Where else a turn's text may be, when it has neither instruction nor content: "
                  "query")
      ->type_name("LIST")
      ->delimiter(',')
      ->check(CLI::IsMember({"instruction", "content", "query"}).description(""))
      ->group("Conditions");
}

void add_plan(CLI::App& verb, PlanFlags& flags) {
  add_examples(verb, flags);
  verb.add_option("--conditions", flags.conditions,
                  "sequential, prompted, turn_based, semantic (these four), and the controls "
                  "random_clusters, length_matched, message_only, mask")
      ->type_name("LIST")
      ->delimiter(',')
      ->group("Conditions");
  verb.add_option("--topics", flags.options.topics,
                  "Topics that the prompted condition names, instead of the file's")
      ->type_name("TEXT")
      ->group("Conditions");
  choices(verb.add_option("--prompts", flags.prompts,
                          "Ask for outputs A, B, C, or for reports on the clusters' focus"),
          {"neutral", "topical"})
      ->group("Conditions");
  verb.add_flag("--no-questions", flags.no_questions, "Ask for the outputs only")
      ->group("Conditions");
  verb.add_flag("--chat", flags.options.chat, "Put context and prompt into Gemma's chat format")
      ->group("Conditions");
  verb.add_option("-n,--predict,--max-tokens", flags.options.max_tokens,
                  "Tokens of an output, at most (300)")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->group("Conditions");
  verb.add_option("--seed", flags.options.seed, "Of sampling and of the random clusters (42)")
      ->type_name("N")
      ->group("Conditions");
}

PlanOptions resolve(const PlanFlags& flags) {
  PlanOptions options = flags.options;
  options.topical = flags.prompts == "topical";
  options.questions = !flags.no_questions;
  for (const std::string& field : flags.text_fields)
    if (std::ranges::find(options.text_fields, field) == options.text_fields.end())
      options.text_fields.push_back(field);
  if (flags.conditions.empty()) return options;
  options.conditions.clear();
  for (const std::string& name : flags.conditions) {
    const Condition condition = condition_named(name);
    if (std::ranges::find(options.conditions, condition) != options.conditions.end())
      fail_usage("--conditions: {} comes twice", name);
    options.conditions.push_back(condition);
  }
  return options;
}

TextEmbedder load_embedder(const std::string& model, const ModelOptions& options,
                           const std::string& task) {
  EngineOptions engine = engine_options(options);
  engine.adapters.clear();  // they are made for the other model
  return TextEmbedder::load(model_path(model), engine, task);
}

std::vector<IsolationExample> read_examples(const PlanFlags& flags) {
  const std::vector<std::filesystem::path> places(flags.files.begin(), flags.files.end());
  return lapidary::read_examples(places);
}

}  // namespace lapidary::cli
