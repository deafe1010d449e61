// lapidary isolate run: the experiment.
#include <filesystem>
#include <span>
#include <tuple>

#include <fmt/format.h>

#include "base/fail.h"
#include "bench_options.h"
#include "io/output_file.h"
#include "isolate/description.h"
#include "isolate/model_measures.h"
#include "isolate/plan_json.h"
#include "isolate/report.h"
#include "isolate/run.h"
#include "isolate_options.h"

namespace lapidary::cli {

namespace {

struct RunVerb {
  Verbosity verbosity;
  ModelOptions model;
  PlanFlags plan;
  IsolationRunOptions options;
  std::string output;
  std::string procedure = "batched";
  std::string clusters = "given";
  std::string similarity_model;
  FindFlags find;
  bool json = false;
};

void setup_run(CLI::App& verb, RunVerb& o) {
  add_plan(verb, o.plan);
  verb.add_option("-o,--output", o.output, "Folder of the run; one that was stopped goes on")
      ->type_name("DIR")
      ->required();
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  verb.add_option("--parallel", o.options.parallel,
                  "Outputs that are decoded together, at most (16)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1024))
      ->group("Speed");
  add_bytes(verb, "--max-memory", o.options.max_memory,
            "For keys and values, as 4GiB (half of what is available)", "Speed");
  choices(verb.add_option("--procedure", o.procedure,
                          "original: each output reads its context again, one after another"),
          {"batched", "original"})
      ->group("Speed");
  choices(verb.add_option("--clusters", o.clusters,
                          "auto: semantic and mask use clusters that are found (isolate cluster)"),
          {"given", "auto"})
      ->group("Conditions");
  add_finding(verb, o.find, "With --clusters auto");
  verb.add_option(
          "--similarity-model", o.similarity_model,
          "An EmbeddingGemma folder, or its name in the cache: measures how similar outputs "
          "are to expected ones (default: the hidden states of the model itself)")
      ->type_name("MODEL")
      ->group("Measures");
  verb.add_flag(
          "--save-contexts", o.options.keep_contexts,
          "Keep what was read of the contexts in the folder, to go on from or to measure with")
      ->group("Speed");
  verb.add_flag("--ignore-eos", o.options.ignore_eos, "Go on past the end of an answer")
      ->group("Sampling");
  verb.add_option("--temp", o.options.sampling.temperature,
                  "Temperature; 0 takes the likeliest token (0.7)")
      ->type_name("T")
      ->group("Sampling");
  verb.add_option("--top-k", o.options.sampling.top_k, "Keep the K likeliest; 0: all (0)")
      ->type_name("K")
      ->group("Sampling");
  verb.add_option("--top-p", o.options.sampling.top_p,
                  "Keep the likeliest up to a share of P; 1: all (1)")
      ->type_name("P")
      ->group("Sampling");
  add_model(verb, o.model);
  add_threads(verb, o.model.threads, "Model");
  add_arithmetic(verb, o.model);
  add_adapters(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Contexts are read once and forked for every output; outputs that wait for no message are "
      "decoded together. Sampling is the original study's unless told otherwise: temperature 0.7, "
      "all tokens. Ctrl-C keeps what is finished, and the same command goes on.\n"
      "\n"
      "Examples:\n"
      "  lapidary isolate run data/isolation/food_001_bakery.json -o run -n 100\n"
      "  lapidary isolate run data/isolation -m ~/models/gemma-3-4b-it --chat --temp 0 -o run\n"
      "  lapidary isolate run FILE --similarity-model google/embeddinggemma-300m -o run");
}

IsolationRunOptions run_options(const RunVerb& o) {
  IsolationRunOptions options = o.options;
  options.plan = resolve(o.plan);
  options.one_at_a_time = o.procedure == "original";
  for (const std::string& text : o.model.adapters) {
    const AdapterUse use = adapter_use(text, "--adapter");
    // Of "folder/" too.
    const std::filesystem::path path = (use.path / "").parent_path();
    options.adapters.push_back(fmt::format("{}:{}", path.filename().string(), use.strength));
  }
  if (options.one_at_a_time && options.keep_contexts)
    fail_usage("--save-contexts: the original procedure reads them again each time");
  return options;
}

// A line per condition: what it cost.
std::string costs_text(const IsolationFolder& folder) {
  std::string text = fmt::format("{:<16}{:>8}{:>11}{:>10}{:>9}{:>12}{:>9}\n", "condition",
                                 "outputs", "prefilled", "reused", "decoded", "K/V", "seconds");
  for (const auto& [condition, cost] : folder.costs())
    text += fmt::format("{:<16}{:>8}{:>11}{:>10}{:>9}{:>12}{:>9.1f}\n", condition, cost.outputs,
                        cost.prefilled, cost.reused, cost.decoded, bytes_text(cost.bytes),
                        cost.seconds);
  return text + fmt::format("{:<16}{:>59.1f}\n", "all together", folder.seconds());
}

// A few figures of each condition; the page has all.
std::string figures_text(const IsolationResult& run) {
  std::string text;
  for (const auto& [group, measure, title] :
       {std::tuple{"outputs", "contamination", "foreign terms per 100 words of the outputs"},
        std::tuple{"outputs", "leak_nats", "leak into the outputs, nats"},
        std::tuple{"questions", "expected_nll", "NLL of the expected answers, nats per token"},
        std::tuple{"synthesis", "coverage", "coverage of the clusters by the synthesis"}}) {
    std::string lines;
    for (const ConditionFigure& f : run.figures)
      if (f.group == group && f.measure == measure)
        lines += fmt::format(
            "  {:<16}{:>10.3f}{}\n", name_of(f.condition), f.mean,
            f.interval ? fmt::format("   {:.3f} … {:.3f}", f.interval->first, f.interval->second)
                       : "");
    if (!lines.empty()) text += fmt::format("\n{}\n{}", title, lines);
  }
  return text;
}

// Of one example its plan itself.
Json plans_json(std::span<const IsolationPlan> plans, const PlanOptions& options,
                const Tokenizer& tokenizer) {
  if (plans.size() == 1) return plan_json(plans[0], options, tokenizer);
  Json json = Json::object();
  for (const IsolationPlan& plan : plans)
    json["examples"].push_back(plan_json(plan, options, tokenizer));
  return json;
}

int run_run(const RunVerb& o) {
  apply(o.verbosity);
  check_finding(o.find, o.clusters);
  IsolationRunOptions options = run_options(o);
  const FindOptions find = resolve(o.find, options.plan.seed);
  const std::vector<IsolationExample> examples = read_examples(o.plan);
  const auto engine = load_engine(o.model, o.verbosity);
  std::optional<TextEmbedder> embedder;
  if (!o.similarity_model.empty())
    embedder = load_embedder(o.similarity_model, o.model, kSimilarityTask);
  const int layer = layer_of(o.find, *engine);
  if (o.clusters == "auto") options.found = {find, layer};
  const Embed by_layer = embed_by_layer(*engine, layer);
  std::vector<IsolationPlan> plans;
  for (const IsolationExample& example : examples) {
    std::vector<int> labels;
    if (o.clusters == "auto") labels = find_clusters(by_layer, example, options.plan, find).labels;
    plans.push_back(make_plan(example, options.plan, engine->tokenizer(), labels));
    for (const std::string& warning : plans.back().warnings) note("lapidary: warning: " + warning);
  }
  TextEmbedder* similarity = embedder ? &*embedder : nullptr;
  // Before there is a folder: a command that is refused must not stand in the way of a right one.
  if (similarity != nullptr) check_lengths(*similarity, plans, options.plan.max_tokens);
  check_run(*engine, plans, options);
  check_measures(*engine, examples, plans, options.plan);
  IsolationFolder folder(o.output, run_description(*engine, examples, plans, options, similarity));
  folder.keep(examples, plans);
  const Interruption interruption;
  {
    ProgressBar bar("outputs", o.verbosity);
    run_isolation(engine, examples, plans, options, folder, Watch{bar.fn(), interruption.token()});
  }
  {
    ProgressBar bar("measures", o.verbosity);
    measure_with_model(engine, examples, plans, options.plan, folder, similarity,
                       Watch{bar.fn(), interruption.token()});
  }
  const IsolationResult runs[] = {read_result(o.output)};
  for (const std::string& remark : remarks(runs[0])) note("lapidary: warning: " + remark);
  Json json = plans_json(plans, options.plan, engine->tokenizer());
  json.update(to_json(runs[0]));
  write_file(folder.path() / "result.json", json.dump(1) + "\n");
  const std::filesystem::path page = folder.path() / "report.html";
  write_file(page, render(isolation_report(runs), ReportFormat::kHtml));
  if (o.json)
    out_json(json);
  else
    out(costs_text(folder) + figures_text(runs[0]) + "\n" + page.string() + "\n");
  return kOk;
}

}  // namespace

void add_isolate_run(Program& program, CLI::App& isolate) {
  add_verb<RunVerb>(program, "run", "Make the outputs of each condition, and measure them",
                    setup_run, run_run, &isolate);
}

}  // namespace lapidary::cli
