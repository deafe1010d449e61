// lapidary study architecture: a drawing of the model.
#include <fmt/format.h>

#include "lapidary/architecture_study.h"

#include "bench_options.h"
#include "study/architecture_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  int64_t context = 4096;
  StudyOutput output{.folder = "architecture"};
};

void setup(CLI::App& verb, Options& o) {
  add_study_output(verb, o.output);
  add_model(verb, o.model);
  verb.add_option("-c,--context", o.context, "Positions that the page begins with (4096)")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 30))
      ->group("Model");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "A page to click through: layers, their kinds, shapes and formats, parameters, bytes, and "
      "what a token costs at any context. Only the config and the headers of the files are "
      "read.\n"
      "\n"
      "Examples:\n"
      "  lapidary study architecture\n"
      "  lapidary study architecture -m ~/models/gemma-3-4b-it-Q4_K_M.gguf -o 4b\n"
      "  lapidary study architecture -m google/gemma-3-1b-it --json");
}

std::string summary(const Architecture& a, int64_t context) {
  std::string text = fmt::format("{:<12}{:<8}{:>8}{:>16}{:>12}{:>20}\n", "stage", "keys", "window",
                                 "parameters", "bytes", "operations a token");
  const auto line = [&](const std::string& name, const char* kind, int64_t window,
                        int64_t parameters, int64_t bytes, int64_t flops) {
    text += fmt::format("{:<12}{:<8}{:>8}{:>16}{:>12}{:>20}\n", name, kind,
                        window > 0 ? std::to_string(window) : "", count_text(parameters),
                        bytes_text(bytes), count_text(flops));
  };
  line("embedding", "", 0, a.embedding.parameters(), a.embedding.bytes, 0);
  for (const LayerArchitecture& layer : a.layers)
    line(fmt::format("layer {}", layer.layer), layer.sliding ? "local" : "global", layer.window,
         layer.parameters(), layer.bytes(), a.layer_flops(layer, context));
  line("norm", "", 0, a.norm.parameters(), a.norm.bytes, 0);
  line(a.config.tie_word_embeddings ? "head, tied" : "head", "", 0, a.head.parameters(),
       a.head.bytes, 2 * a.head.parameters());
  line("all", "", 0, a.parameters(), a.bytes(), a.flops(context));
  return text;
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.output);
  const Architecture a = study_architecture(model_folder(o.model, o.verbosity));
  const int64_t context = std::min<int64_t>(o.context, a.config.max_position_embeddings);
  write_study(o.output, "architecture.json", to_json(a), architecture_report(a, context),
              summary(a, context));
  return kOk;
}

}  // namespace

void add_study_architecture(Program& program, CLI::App& study) {
  add_verb<Options>(program, "architecture", "Draw a model, and count what a token costs", setup,
                    run, &study);
}

}  // namespace lapidary::cli
