// lapidary adapter: what low-rank adapters are, and from one format into another.
#include "lapidary/adapter.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

// ---- show

struct ShowOptions {
  Verbosity verbosity;
  std::string path;
  bool json = false;
};

void setup_show(CLI::App& verb, ShowOptions& o) {
  verb.add_option("PATH", o.path, "The adapter: PEFT's or MLX-LM's folder, or a GGUF file")
      ->type_name("PATH")
      ->required();
  verb.add_flag("--json", o.json, "Print one JSON document, every matrix in it")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Examples:\n"
      "  lapidary adapter show tuned\n"
      "  lapidary adapter show tuned/0000100_adapters.safetensors --json");
}

Json summary_json(const AdapterSummary& s) {
  Json matrices = Json::array();
  for (const AdapterSummary::Matrix& m : s.matrices)
    matrices.push_back({{"target", m.target},
                        {"rows", m.rows},
                        {"cols", m.cols},
                        {"rank", m.rank},
                        {"scale", m.scale}});
  return {{"format", name_of(s.format)},    {"base_model", s.base_model}, {"dtype", s.dtype},
          {"multimodal", s.multimodal},     {"parameters", s.parameters}, {"dora", s.dora},
          {"matrices", std::move(matrices)}};
}

// "model.layers.3.mlp.up_proj": 3, and "mlp.up_proj".
std::pair<int, std::string> split_target(const std::string& target) {
  const size_t first = std::string_view("model.layers.").size();
  const size_t dot = target.find('.', first);
  return {std::stoi(target.substr(first, dot - first)), target.substr(dot + 1)};
}

std::string layers_text(std::vector<int> layers) {
  std::ranges::sort(layers);
  std::vector<std::string> runs;
  for (size_t i = 0, next = 0; i < layers.size(); i = next) {
    while (next < layers.size() && layers[next] == layers[i] + static_cast<int>(next - i)) ++next;
    runs.push_back(next - i == 1 ? fmt::format("{}", layers[i])
                                 : fmt::format("{}-{}", layers[i], layers[next - 1]));
  }
  return fmt::format("{}", fmt::join(runs, ","));
}

std::string summary_text(const AdapterSummary& s) {
  std::string text = fmt::format("format           {}\n", name_of(s.format));
  if (!s.base_model.empty()) text += fmt::format("made for         {}\n", s.base_model);
  if (s.multimodal) text += "names            of a model with an image encoder\n";
  if (s.dora) text += "lengths of rows  of every matrix: DoRA\n";
  text += fmt::format("factors          {} matrices, {} parameters, {}\n\n", s.matrices.size(),
                      count_text(s.parameters), s.dtype);
  // Rows alike but for the layer are one line.
  using Kind = std::tuple<std::string, int64_t, int64_t, int64_t, double>;
  std::map<Kind, std::vector<int>> layers;
  for (const AdapterSummary::Matrix& m : s.matrices) {
    const auto [layer, kind] = split_target(m.target);
    layers[{kind, m.rows, m.cols, m.rank, m.scale}].push_back(layer);
  }
  text +=
      fmt::format("{:<18} {:>14} {:>6} {:>10}  {}\n", "matrix", "shape", "rank", "scale", "layers");
  for (const auto& [kind, list] : layers) {
    const auto& [name, rows, cols, rank, scale] = kind;
    text += fmt::format("{:<18} {:>14} {:>6} {:>10.6g}  {}\n", name,
                        fmt::format("[{}, {}]", rows, cols), rank, scale, layers_text(list));
  }
  return text;
}

int run_show(const ShowOptions& o) {
  apply(o.verbosity);
  const AdapterSummary summary = describe_adapter(o.path);
  if (o.json)
    out_json(summary_json(summary));
  else
    out(summary_text(summary));
  return kOk;
}

// ---- convert

struct ConvertOptions {
  Verbosity verbosity;
  std::string input, output, format, model;
  bool force = false;
  bool json = false;
};

void setup_convert(CLI::App& verb, ConvertOptions& o) {
  verb.add_option("IN", o.input, "The adapter")->type_name("PATH")->required();
  verb.add_option("-o,--output", o.output, "The folder, or GGUF file, to write")
      ->type_name("PATH")
      ->required()
      ->group("Output");
  choices(verb.add_option("--to", o.format, "The format")->required()->group("Output"),
          {"peft", "mlx", "gguf"});
  verb.add_option("-m,--model", o.model,
                  "The model it is for, which must fit; needed for GGUF, whose files say an "
                  "architecture")
      ->type_name("MODEL")
      ->group("Model");
  verb.add_flag("--force", o.force, "Replace the adapter that is there")->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Factors keep their bits, unless matrices have scales of their own and the format has one "
      "for "
      "all. docs/adapters.md describes the formats.\n"
      "\n"
      "Examples:\n"
      "  lapidary adapter convert tuned -o tuned-mlx --to mlx\n"
      "  lapidary adapter convert tuned -o tuned.gguf --to gguf -m ~/models/gemma-3-1b-it");
}

int run_convert(const ConvertOptions& o) {
  apply(o.verbosity);
  const AdapterConversion options{
      .format = adapter_format_named(o.format),
      .model = o.model.empty() ? std::filesystem::path() : model_path(o.model),
      .overwrite = o.force};
  const AdapterSummary summary = convert_adapter(o.input, o.output, options);
  if (o.json)
    out_json(summary_json(summary));
  else if (!o.verbosity.quiet)
    note(fmt::format("{}: {} matrices, {} parameters", o.output, summary.matrices.size(),
                     count_text(summary.parameters)));
  return kOk;
}

}  // namespace

void add_adapter(Program& program) {
  struct Nothing {};
  CLI::App& adapter = add_verb<Nothing>(
      program, "adapter", "Describe low-rank adapters, and convert them",
      [](CLI::App& verb, Nothing&) {
        verb.footer(
            "Examples:\n"
            "  lapidary adapter show tuned\n"
            "  lapidary adapter convert tuned -o tuned-mlx --to mlx");
      },
      [](const Nothing&) -> int {
        throw Error(ErrorKind::kUsage, "adapter needs a second word",
                    "adapter show, adapter convert");
      });
  adapter.require_subcommand(0, 1);
  add_verb<ShowOptions>(program, "show", "Describe an adapter", setup_show, run_show, &adapter);
  add_verb<ConvertOptions>(program, "convert", "Write an adapter in another format", setup_convert,
                           run_convert, &adapter);
}

}  // namespace lapidary::cli
