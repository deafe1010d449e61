// lapidary isolate: the laboratory of semantic KV-cache isolation.
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include "lapidary/config.h"
#include "lapidary/error.h"

#include "isolate/plan_json.h"
#include "isolate_options.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct PlanVerb {
  Verbosity verbosity;
  ModelOptions model;
  PlanFlags plan;
  bool json = false;
};

void setup_plan(CLI::App& verb, PlanVerb& o) {
  add_plan(verb, o.plan);
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_model(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Nothing is generated: a folder with the model's tokenizer is enough. Caches that wait for "
      "messages are counted without them. What the model's context has no room for is marked.\n"
      "\n"
      "Examples:\n"
      "  lapidary isolate plan data/isolation/food_001_bakery.json\n"
      "  lapidary isolate plan data/isolation -m ~/models/gemma-3-1b-it --json");
}

// Positions of the model, where the folder says: a tokenizer's alone, or that of another kind of
// model, does not, and is enough for the rest.
std::optional<int64_t> positions_of(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "config.json")) return std::nullopt;
  try {
    return read_config(folder).max_position_embeddings;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string plan_text(const IsolationPlan& plan, const PlanOptions& options,
                      const Tokenizer& tokenizer, const std::vector<Misfit>& too_long,
                      int64_t positions) {
  std::string text = plan.example + "\n";
  for (const PlannedCondition& condition : plan.conditions) {
    std::string line = fmt::format("  {:<16}", name_of(condition.condition));
    for (const PlannedCache& cache : condition.caches) {
      std::string heard;
      for (const size_t i : cache.messages) heard += " + " + condition.outputs[i].name;
      line += fmt::format(" {} {}{}", cache.name,
                          count_tokens(tokenizer, condition, cache, options.chat), heard);
      if (&cache != &condition.caches.back()) line += ",";
    }
    text += line + "\n";
    const Misfit* most = nullptr;
    for (const Misfit& misfit : too_long)
      if (misfit.condition == condition.condition && (!most || misfit.needed > most->needed))
        most = &misfit;
    if (most != nullptr)
      text +=
          fmt::format("  {:<16} does not fit: output {} needs {} positions of {}, -n {} included\n",
                      "", most->output, most->needed, positions, options.max_tokens);
  }
  return text;
}

int run_plan(const PlanVerb& o) {
  apply(o.verbosity);
  const PlanOptions options = resolve(o.plan);
  const std::vector<IsolationExample> examples = read_examples(o.plan);
  const std::filesystem::path folder = model_folder(o.model, o.verbosity);
  const Tokenizer tokenizer = load_tokenizer(folder);
  const std::optional<int64_t> positions = positions_of(folder);
  Json plans = Json::array();
  std::string text;
  for (const IsolationExample& example : examples) {
    const IsolationPlan plan = make_plan(example, options, tokenizer);
    std::vector<Misfit> too_long;
    if (positions) too_long = misfits(plan, options, tokenizer, *positions);
    if (o.json) {
      plans.push_back(plan_json(plan, options, tokenizer));
      plans.back()["positions"] = positions ? Json(*positions) : Json();
      plans.back()["too_long"] = Json::array();
      for (const Misfit& misfit : too_long)
        plans.back()["too_long"].push_back({{"condition", name_of(misfit.condition)},
                                            {"output", misfit.output},
                                            {"needed", misfit.needed}});
      continue;
    }
    for (const std::string& warning : plan.warnings) note("lapidary: warning: " + warning);
    text += plan_text(plan, options, tokenizer, too_long, positions.value_or(0));
  }
  if (o.json)
    out_json(plans.size() == 1 ? plans[0] : Json{{"examples", plans}});
  else
    out(text);
  return kOk;
}

}  // namespace

void add_isolate(Program& program) {
  struct Nothing {};
  CLI::App& isolate = add_verb<Nothing>(
      program, "isolate", "Measure what isolating a conversation's topics does",
      [](CLI::App& verb, Nothing&) {
        verb.require_subcommand(1);
        verb.footer(
            "A conversation of several topics is split into clusters, each of which gets a KV "
            "cache of its own; docs/isolation.md has the experiment.\n"
            "\n"
            "Examples:\n"
            "  lapidary isolate plan data/isolation/food_001_bakery.json\n"
            "  lapidary isolate run data/isolation -o run -n 100");
      },
      [](const Nothing&) { return kOk; });
  add_isolate_check(program, isolate);
  add_verb<PlanVerb>(program, "plan", "Show the contexts of each condition, and their sizes",
                     setup_plan, run_plan, &isolate);
  add_isolate_cluster(program, isolate);
  add_isolate_run(program, isolate);
  add_isolate_report(program, isolate);
  add_isolate_judge(program, isolate);
  add_isolate_prove(program, isolate);
}

}  // namespace lapidary::cli
