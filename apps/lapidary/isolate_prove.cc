// lapidary isolate prove: whether clusters are isolated.
#include <algorithm>

#include <fmt/format.h>

#include "base/fail.h"
#include "bench_options.h"
#include "isolate/prove.h"
#include "isolate_options.h"

namespace lapidary::cli {

namespace {

struct ProveVerb {
  Verbosity verbosity;
  ModelOptions model;
  std::string file;
  int64_t tokens = 0;
  bool json = false;
};

void setup_prove(CLI::App& verb, ProveVerb& o) {
  verb.add_option("FILE", o.file, "An example, whose clusters are read")
      ->type_name("FILE")
      ->required();
  verb.add_option("-n,--tokens", o.tokens, "Tokens of each cluster, at most; 0: all (0)")
      ->type_name("N")
      ->check(between<int64_t>(0, 1 << 20));
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_model(verb, o.model);
  add_threads(verb, o.model.threads, "Model");
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Clusters are read a token at a time, in one step with the others, and what the model says "
      "after each is compared. Exits with 1 if a statement does not hold.\n"
      "\n"
      "Examples:\n"
      "  lapidary isolate prove data/isolation/food_001_bakery.json\n"
      "  lapidary isolate prove FILE -m ~/models/gemma-3-1b-it -n 100 --compute exact");
}

int run_prove(const ProveVerb& o) {
  apply(o.verbosity);
  if (o.tokens == 1)
    fail_usage("-n: 1 given, expected 2 or more: the first token of each cluster is <bos>");
  const IsolationExample example = read_example(o.file);
  const auto engine = load_engine(o.model, o.verbosity);
  const IsolationPlan plan =
      make_plan(example, {.conditions = {Condition::kSemantic}}, engine->tokenizer());
  const PlannedCondition& semantic = plan.conditions[0];
  std::vector<std::vector<Token>> contexts;
  for (const PlannedCache& cache : semantic.caches) {
    const std::string text = context_text(semantic, cache, [](size_t) { return ""; });
    contexts.push_back(context_tokens(engine->tokenizer(), text, false));
    if (o.tokens > 0 && std::ssize(contexts.back()) > o.tokens)
      contexts.back().resize(static_cast<size_t>(o.tokens));
  }
  if (contexts.size() < 2) fail("{}: has one cluster, isolation is between two", o.file);
  check_proof(*engine, contexts, example.id);
  const Interruption interruption;
  std::vector<IsolationCheck> checks;
  {
    ProgressBar bar("tokens", o.verbosity);
    checks = prove_isolation(engine, contexts, Watch{bar.fn(), interruption.token()});
  }
  Json json = Json::array();
  std::string text;
  for (const IsolationCheck& check : checks) {
    json.push_back({{"statement", check.statement},
                    {"holds", check.holds()},
                    {"difference", check.difference},
                    {"allowed", check.most}});
    text += fmt::format("{}  {}\n       largest difference of logits {:.3g}\n",
                        check.holds() ? "holds" : "FAILS", check.statement, check.difference);
  }
  if (o.json)
    out_json({{"example", example.id}, {"checks", json}});
  else
    out(text);
  return std::ranges::all_of(checks, &IsolationCheck::holds) ? kOk : kFailed;
}

}  // namespace

void add_isolate_prove(Program& program, CLI::App& isolate) {
  add_verb<ProveVerb>(program, "prove", "Show on a model's logits that clusters are isolated",
                      setup_prove, run_prove, &isolate);
}

}  // namespace lapidary::cli
