#include "capacity_verbs.h"

#include "bench_options.h"
#include "io/output_file.h"

namespace lapidary::cli {

void add_recipe(CLI::App& verb, CapacityRecipe& recipe, int64_t length) {
  verb.add_option("--length", recipe.length, "Tokens of a sequence; the first is not predicted")
      ->type_name("N")
      ->check(between<int64_t>(length, 4096))
      ->capture_default_str();
  verb.add_option("--batch-size", recipe.batch, "Sequences of a step")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->capture_default_str();
  choices(verb.add_option("--optimizer", recipe.optimizer, "What trains")->capture_default_str(),
          {"adamw", "adamw8", "sgd", "muon"});
  verb.add_option("--learning-rate,--lr", recipe.learning_rate, "The highest rate")
      ->type_name("X")
      ->capture_default_str();
  verb.add_option("--weight-decay", recipe.weight_decay,
                  "Of matrices: keeps them from growing, whose steps would come to count less")
      ->type_name("X")
      ->capture_default_str();
  verb.add_option("--seed", recipe.seed, "Of weights, data and its order")
      ->type_name("N")
      ->capture_default_str();
}

void add_models(CLI::App& verb, std::vector<int64_t>& sizes, int& layers) {
  verb.add_option("--sizes", sizes, "Parameters of the models, about, embeddings included")
      ->delimiter(',')
      ->type_name("LIST")
      ->check(between<int64_t>(1000, 100'000'000))
      ->capture_default_str();
  verb.add_option("--layers", layers, "Of each model")
      ->type_name("N")
      ->check(between(1, 64))
      ->capture_default_str();
}

void add_steps(CLI::App& verb, int64_t& steps, int64_t least) {
  verb.add_option("--steps", steps, "Of each training")
      ->type_name("N")
      ->check(between<int64_t>(least, 1 << 30))
      ->capture_default_str();
}

void add_going_on(CLI::App& verb, GoingOn& output) {
  verb.add_option("-o,--output", output.folder,
                  "Folder for models, page and figures; a study that was stopped goes on")
      ->type_name("DIR")
      ->group("Output")
      ->capture_default_str();
  verb.add_flag("--json", output.json, "Print one JSON document as well")->group("Output");
}

void write_going_on(const GoingOn& output, const char* name, const Json& figures,
                    const Report& report, const std::string& summary) {
  const std::filesystem::path folder = output.folder;
  write_file(folder / name, figures.dump(1) + "\n");
  write_file(folder / "report.html", render(report, ReportFormat::kHtml));
  if (output.json)
    out_json(figures);
  else
    out(summary);
  note((folder / "report.html").string());
}

}  // namespace lapidary::cli
