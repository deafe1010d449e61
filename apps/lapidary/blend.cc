// lapidary blend: one adapter made of several.
#include "lapidary/blend.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "bench_options.h"
#include "blend/overlap_report.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::vector<std::string> adapters;
  std::string output;
  std::string method = "cat";
  std::string format = "peft";
  std::string html;
  BlendOptions blend;
  std::string layer_weights;
  bool json = false;
};

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
                  fmt::format("How to blend: {} (cat)", fmt::join(blend_method_names(), ", ")))
      ->type_name("NAME")
      ->group(method);
  verb.add_option("--density", o.blend.density,
                  "Share of the values to keep, of ties*, dare-* and magnitude-prune* (1)")
      ->type_name("X")
      ->group(method);
  verb.add_option("--rank", o.blend.rank, "Of svd and *-svd (the largest of the adapters')")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->group(method);
  verb.add_option("--seed", o.blend.seed, "Of dare-*'s choice (0)")->type_name("N")->group(method);
  verb.add_option("--layer-weights", o.layer_weights,
                  "Factors of the weights for matrices whose names fit a pattern, as JSON: "
                  "{\"*.layers.0.*\": [1, 0.5]}")
      ->type_name("FILE")
      ->group(method);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "cat, task-arithmetic, svd and slerp blend what adapters add to a matrix, and are exact. "
      "linear, ties, dare-* and magnitude-prune blend each factor for itself, as PEFT's "
      "add_weighted_adapter does under the same names: their products have terms that no adapter "
      "had. With -svd they blend what adapters add, and keep the nearest to that of the rank: "
      "slower, and closer to what was published. A negative weight takes an adapter "
      "away. docs/adapters.md has the formulas.\n"
      "\n"
      "Examples:\n"
      "  lapidary blend style facts -o both\n"
      "  lapidary blend style:0.7 facts:0.5 -o both --method svd --rank 16 --html overlap.html\n"
      "  lapidary blend good rude:-0.5 -o polite --method task-arithmetic\n"
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

Blend run_blend(const Options& o, const std::vector<BlendPart>& parts) {
  BlendOptions options = o.blend;
  options.method = blend_method_named(o.method);
  options.format = adapter_format_named(o.format);
  options.layer_weights = o.layer_weights;
  const Interruption interruption;
  ProgressBar bar("blending", o.verbosity);
  return blend(parts, o.output, options, Watch{bar.fn(), interruption.token()});
}

Json result_json(const Options& o, const Blend& made, const Report& overlap) {
  Json json = {{"output", o.output.empty() ? Json(nullptr) : Json(o.output)}};
  if (!o.output.empty()) {
    json["method"] = o.method;
    json["matrices"] = made.result.matrices.size();
    json["parameters"] = made.result.parameters;
    if (o.method.ends_with("svd")) json["truncated"] = made.truncated;
  }
  json["overlaps"] = overlap.records;
  return json;
}

int run(const Options& o) {
  apply(o.verbosity);
  const std::vector<BlendPart> parts = parts_of(o);
  if (o.output.empty() && parts.size() < 2)
    fail_usage("one adapter and no -o: nothing to compare, nothing to write");
  PageFile page(o.html);
  std::vector<std::string> names;
  std::vector<std::filesystem::path> paths;
  for (const BlendPart& part : parts) {
    paths.push_back(part.adapter);
    names.push_back(part.adapter.string());
  }
  Blend made;
  if (o.output.empty())
    made.overlaps = compare_adapters(paths);
  else
    made = run_blend(o, parts);
  const Report report = overlap_report(names, made.overlaps);
  page.write(report);
  if (o.json) {
    out_json(result_json(o, made, report));
    return kOk;
  }
  if (parts.size() > 1) out(render(report, ReportFormat::kMarkdown));
  if (!o.output.empty() && !o.verbosity.quiet) {
    note(fmt::format("{}: {} matrices, {} parameters", o.output, made.result.matrices.size(),
                     count_text(made.result.parameters)));
    if (o.method.ends_with("svd"))
      note(fmt::format("the rank leaves out {:.3g} % of the blend", 100 * made.truncated));
  }
  return kOk;
}

}  // namespace

void add_blend(Program& program) {
  add_verb<Options>(program, "blend", "Make one adapter of several, and see their overlap", setup,
                    run);
}

}  // namespace lapidary::cli
