// lapidary blend: one adapter made of several.
#include "lapidary/blend.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "bench_options.h"
#include "blend/fit_report.h"
#include "blend/overlap_report.h"
#include "gemma/adapter_file.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

constexpr const char* kLearned = "learned";

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  std::vector<std::string> adapters;
  std::string output;
  std::string method = "cat";
  std::string format = "peft";
  std::string html;
  BlendOptions blend;
  FitOptions fit;
  std::string layer_weights, data;
  std::vector<const CLI::Option*> of_learning;  // what other methods have no use for
  bool json = false;

  bool learned() const { return method == kLearned; }
  bool truncates() const { return method.ends_with("svd") || (learned() && blend.rank > 0); }
};

void add_learning(CLI::App& verb, Options& o) {
  const auto add = [&](CLI::Option* option, const char* type) {
    o.of_learning.push_back(option->type_name(type));
  };
  add(verb.add_option("--data", o.data,
                      "Examples of what the blend is for, as train takes them: a .jsonl file, a "
                      "folder, or plain text"),
      "PATH");
  add(verb.add_flag("--per-layer", o.fit.per_layer, "A weight of each adapter for each layer"), "");
  add(verb.add_option("--penalty", o.fit.penalty,
                      "Of the sum of the weights' sizes, in nats (0.05)"),
      "X");
  add(verb.add_option("--passes", o.fit.passes, "Over the examples, at most (40)"), "N");
  add(verb.add_option("--sequence-length", o.fit.sequence_length,
                      "Tokens that an example may have (512)"),
      "N");
  add_model(verb, o.model);
  add_threads(verb, o.fit.threads, "");
  for (const char* name : {"--data", "--per-layer", "--penalty", "--passes", "--sequence-length",
                           "--model", "--threads"})
    verb.get_option(name)->group("Of --method learned");
}

void setup(CLI::App& verb, Options& o) {
  verb.add_option("ADAPTERS", o.adapters, "Adapters, and their weights (1)")
      ->type_name("PATH[:W]..")
      ->required();
  verb.add_option("-o,--output", o.output,
                  "The folder to write; without it only the overlap is told")
      ->type_name("PATH")
      ->group("Output");
  choices(verb.add_option("--to", o.format, "The format (peft)")->group("Output"), {"peft", "mlx"});
  verb.add_flag("--force", o.blend.overwrite, "Replace the adapter that is there")->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document, every matrix in it")->group("Output");
  verb.add_option("--html", o.html, "Write the overlap as a page with charts")
      ->type_name("FILE")
      ->group("Output");

  const char* method = "Method";
  verb.add_option("--method", o.method,
                  fmt::format("How to blend: {}, or {}: weights by what they do to the loss on "
                              "--data (cat)",
                              fmt::join(blend_method_names(), ", "), kLearned))
      ->type_name("NAME")
      ->group(method);
  verb.add_option("--density", o.blend.density,
                  "Share of the values to keep, of ties*, dare-* and magnitude-prune* (1)")
      ->type_name("X")
      ->group(method);
  verb.add_option("--rank", o.blend.rank,
                  "Of svd and *-svd (the largest of the adapters'), and of learned (none: exact)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->group(method);
  verb.add_option("--seed", o.blend.seed, "Of dare-*'s choice (0)")->type_name("N")->group(method);
  verb.add_option("--layer-weights", o.layer_weights,
                  "Factors of the weights for matrices whose names fit a pattern, as JSON: "
                  "{\"*.layers.0.*\": [1, 0.5]}")
      ->type_name("FILE")
      ->group(method);
  add_learning(verb, o);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "cat, task-arithmetic, svd and slerp blend what adapters add to a matrix, and are exact. "
      "linear, ties, dare-* and magnitude-prune blend each factor for itself, as PEFT's "
      "add_weighted_adapter does under the same names: their products have terms that no adapter "
      "had. With -svd they blend what adapters add, and keep the nearest to that of the rank: "
      "slower, and closer to what was published. A negative weight takes an adapter "
      "away. learned finds the weights of the exact sum that lower the loss of -m on --data, and "
      "leaves out adapters that do not. docs/adapters.md has the formulas.\n"
      "\n"
      "Examples:\n"
      "  lapidary blend style facts -o both\n"
      "  lapidary blend style:0.7 facts:0.5 -o both --method svd --rank 16 --html overlap.html\n"
      "  lapidary blend good rude:-0.5 -o polite --method task-arithmetic\n"
      "  lapidary blend a b c -o task --method learned -m gemma-3-1b --data examples.jsonl\n"
      "  lapidary blend style facts --json");
}

std::vector<BlendPart> parts_of(const Options& o) {
  std::vector<BlendPart> parts;
  for (const std::string& text : o.adapters) {
    const AdapterUse use = adapter_use(text, "ADAPTERS");
    parts.push_back({use.path, use.strength});
  }
  return parts;
}

void check_method(const Options& o) {
  std::vector<const char*> names = blend_method_names();
  names.push_back(kLearned);
  if (std::ranges::none_of(names, [&](const char* name) { return o.method == name; }))
    fail_usage("--method: '{}' given, expected one of {}", o.method, fmt::join(names, ", "));
}

void check_learning(const Options& o) {
  if (!o.learned()) {
    for (const CLI::Option* option : o.of_learning)
      if (option->count() > 0) fail_usage("{}: is of --method learned", option->get_name());
    return;
  }
  if (o.data.empty()) fail_usage("--method learned: no --data given");
  if (!o.layer_weights.empty())
    fail_usage(
        "--layer-weights: --method learned finds the weights, with --per-layer of each layer");
  if (!o.output.empty())
    check_adapter_target(o.output, adapter_format_named(o.format), o.blend.overwrite);
}

BlendFit run_fit(const Options& o, const std::vector<BlendPart>& parts) {
  FitOptions options = o.fit;
  options.model = model_folder(o.model, o.verbosity);
  options.data = o.data;
  const Interruption interruption;
  ProgressBar bar("learning weights", o.verbosity);
  return fit_blend(parts, options, Watch{bar.fn(), interruption.token()});
}

// The parts with the weights that were found; those of weight 0 everywhere are none.
std::vector<BlendPart> fitted(const Options& o, const std::vector<BlendPart>& parts,
                              const BlendFit& fit) {
  std::vector<BlendPart> left;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::vector<double>& weights = fit.weights[i];
    if (std::ranges::all_of(weights, [](double w) { return w == 0; })) continue;
    left.push_back({.adapter = parts[i].adapter, .weight = weights.front()});
    if (weights.size() > 1) left.back().layer_weights = weights;
  }
  if (left.empty())
    throw Error(ErrorKind::kInput,
                fmt::format("{}: no adapter lowers the loss by more than its penalty", o.data),
                "a smaller --penalty may leave some");
  return left;
}

Blend run_blend(const Options& o, const std::vector<BlendPart>& parts) {
  BlendOptions options = o.blend;
  options.method = !o.learned()       ? blend_method_named(o.method)
                   : options.rank > 0 ? BlendMethod::kSvd
                                      : BlendMethod::kCat;
  options.format = adapter_format_named(o.format);
  options.layer_weights = o.layer_weights;
  const Interruption interruption;
  ProgressBar bar("blending", o.verbosity);
  return blend(parts, o.output, options, Watch{bar.fn(), interruption.token()});
}

std::vector<std::string> names_of(const std::vector<BlendPart>& parts) {
  std::vector<std::string> names;
  for (const BlendPart& part : parts) names.push_back(part.adapter.string());
  return names;
}

Json fit_json(const BlendFit& fit, const Report& weights) {
  return {{"loss_without", fit.base_loss}, {"loss_given", fit.given_loss}, {"loss", fit.loss},
          {"targets", fit.targets},        {"passes", fit.passes},         {"settled", fit.settled},
          {"weights", weights.records}};
}

Json result_json(const Options& o, const Blend& made, const Report& overlap, const Json& fit) {
  Json json = {{"output", o.output.empty() ? Json(nullptr) : Json(o.output)}};
  if (!o.output.empty()) {
    json["method"] = o.method;
    json["matrices"] = made.result.matrices.size();
    json["parameters"] = made.result.parameters;
    if (o.truncates()) json["truncated"] = made.truncated;
  }
  if (!fit.is_null()) json["fit"] = fit;
  json["overlaps"] = overlap.records;
  return json;
}

// The page of the overlap, with the weights before it.
Report joined(const Report& overlap, const Report& weights) {
  Report page = overlap;
  page.facts.insert(page.facts.end(), weights.facts.begin(), weights.facts.end());
  page.charts.insert(page.charts.begin(), weights.charts.begin(), weights.charts.end());
  return page;
}

void tell(const Options& o, const Blend& made, const Report& overlap, bool several,
          const std::optional<Report>& weights) {
  if (weights) out(render(*weights, ReportFormat::kMarkdown));
  if (weights && several) out("\n");
  if (several) out(render(overlap, ReportFormat::kMarkdown));
  if (o.output.empty() || o.verbosity.quiet) return;
  note(fmt::format("{}: {} matrices, {} parameters", o.output, made.result.matrices.size(),
                   count_text(made.result.parameters)));
  if (o.truncates())
    note(fmt::format("the rank leaves out {:.3g} % of the blend", 100 * made.truncated));
}

int run(const Options& o) {
  apply(o.verbosity);
  std::vector<BlendPart> parts = parts_of(o);
  if (o.output.empty() && parts.size() < 2 && !o.learned())
    fail_usage("one adapter and no -o: nothing to compare, nothing to write");
  check_method(o);
  check_learning(o);
  PageFile page(o.html);
  std::optional<BlendFit> fit;
  std::optional<Report> weights;
  if (o.learned()) {
    fit = run_fit(o, parts);
    weights = fit_report(names_of(parts), *fit);
    if (!o.output.empty()) parts = fitted(o, parts, *fit);
  }
  Blend made;
  if (o.output.empty()) {
    std::vector<std::filesystem::path> paths;
    for (const BlendPart& part : parts) paths.push_back(part.adapter);
    made.overlaps = compare_adapters(paths);
  } else {
    made = run_blend(o, parts);
  }
  const Report overlap = overlap_report(names_of(parts), made.overlaps);
  page.write(weights ? joined(overlap, *weights) : overlap);
  if (o.json) {
    out_json(result_json(o, made, overlap, fit ? fit_json(*fit, *weights) : Json()));
  } else {
    tell(o, made, overlap, parts.size() > 1, weights);
  }
  return kOk;
}

}  // namespace

void add_blend(Program& program) {
  add_verb<Options>(program, "blend", "Make one adapter of several, and see their overlap", setup,
                    run);
}

}  // namespace lapidary::cli
