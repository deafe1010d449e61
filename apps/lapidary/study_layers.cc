// lapidary study layers: what each layer does to a text.
#include <algorithm>

#include <fmt/format.h>

#include "lapidary/layer_study.h"

#include "bench_options.h"
#include "study/layers_report.h"
#include "study/matrix_report.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  LayerOptions layers;
  std::string ablate;
  bool spectra = false;
  bool gradients = false;
  bool errors = false;
  std::string original;
  StudyOutput output{.folder = "layers"};
};

// What is not done unless it is asked for.
void add_more(CLI::App& verb, Options& o) {
  choices(verb.add_option("--ablate", o.ablate,
                          "What the loss is without each layer, each head, or both"),
          {"layers", "heads", "all"})
      ->group("Besides");
  verb.add_flag("--spectra", o.spectra, "Singular values of each matrix: ranks, tail")
      ->group("Besides");
  verb.add_flag("--gradients", o.gradients,
                "How strongly the text's loss pulls at each matrix: one pass back")
      ->group("Besides");
  verb.add_flag("--errors", o.errors, "What each matrix would lose at 4 bits in groups of 64")
      ->group("Besides");
  verb.add_option("--original", o.original,
                  "The model that this one was made of: --errors, and what its matrices have lost")
      ->type_name("DIR")
      ->group("Besides");
}

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  verb.add_option("--sample", o.layers.sample,
                  "Positions for ranks and likeness, evenly spread over the text")
      ->type_name("N")
      ->check(between<int64_t>(2, 1 << 20))
      ->capture_default_str();
  verb.add_option("--lens-sample", o.layers.lens_sample,
                  "Positions for the logit lens, each of which takes a head per layer")
      ->type_name("N")
      ->check(between<int64_t>(1, 1 << 20))
      ->capture_default_str();
  add_more(verb, o);
  add_study_output(verb, o.output);
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Norms, outliers, neurons, ranks and likeness of the residual stream, what the model would "
      "predict if it ended at each layer, and what attention and MLPs add to the token that "
      "follows. What is asked for besides takes its own time: leaving layers out reads half of "
      "the model again for each, heads for each of theirs. docs/study.md defines the figures.\n"
      "\n"
      "Examples:\n"
      "  lapidary study layers -f text.txt\n"
      "  lapidary study layers -f text.txt --ablate all --spectra --gradients\n"
      "  lapidary study layers -m 1b-4bit -f text.txt --original ~/models/gemma-3-1b-it\n"
      "  lapidary study layers -m ~/models/gemma-3-1b-it -f book.txt -c 2048 -o book --lens-sample "
      "512");
}

std::string summary(const LayerStudy& study) {
  std::string text =
      fmt::format("{:>5} {:<7}{:>9}{:>10}{:>9}{:>9}{:>8}{:>10}{:>9}\n", "layer", "keys", "length",
                  "attention", "MLP", "outlier", "rank", "lens nll", "lens KL");
  for (const LayerFigures& f : study.layers)
    text +=
        fmt::format("{:>5} {:<7}{:>9.1f}{:>10.1f}{:>9.1f}{:>9.1f}{:>8.1f}{:>10.3f}{:>9.3f}\n",
                    f.layer, f.sliding ? "local" : "global", f.norm, f.attention_norm, f.mlp_norm,
                    f.outlier_ratio, f.effective_rank, f.lens.target_nll, f.lens.kl_to_final);
  return text;
}

// The layers and heads without which the loss grows most.
std::string summary(const AblationStudy& study) {
  constexpr size_t kShown = 4;
  std::string text = fmt::format("loss {:.4f} nats per token\n", study.nll);
  const auto add = [&](const char* what, std::vector<Ablation> list, auto&& name) {
    if (list.empty()) return;
    std::ranges::sort(list, std::ranges::greater(), &Ablation::nll);
    list.resize(std::min(list.size(), kShown));
    text += fmt::format("without {}", what);
    for (const Ablation& a : list) text += fmt::format("  {} {:+.3f}", name(a), a.nll - study.nll);
    text += "\n";
  };
  add("layer", study.layers, [](const Ablation& a) { return std::to_string(a.layer); });
  add("head ", study.heads,
      [](const Ablation& a) { return fmt::format("{}.{}", a.layer, a.head); });
  return text;
}

std::optional<AblationStudy> ablation(const Options& o, const std::shared_ptr<const Engine>& engine,
                                      std::span<const Token> tokens, const Interruption& stop) {
  if (o.ablate.empty()) return std::nullopt;
  ProgressBar bar("leaving out", o.verbosity);
  const Ablate what = o.ablate == "layers"  ? Ablate::kLayers
                      : o.ablate == "heads" ? Ablate::kHeads
                                            : Ablate::kAll;
  return ablate(engine, tokens, what, Watch{bar.fn(), stop.token()});
}

MatrixStudies matrix_studies(const Options& o, const std::shared_ptr<const Engine>& engine,
                             const std::shared_ptr<const Engine>& original,
                             std::span<const Token> tokens, const Interruption& stop) {
  MatrixStudies studies;
  if (o.errors || original) {
    ProgressBar bar("errors", o.verbosity);
    studies.errors =
        quantization_errors(engine, original, tokens, 256, Watch{bar.fn(), stop.token()});
  }
  if (o.gradients) {
    ProgressBar bar("gradients", o.verbosity);
    studies.gradients = gradient_flow(*engine, tokens, Watch{bar.fn(), stop.token()});
  }
  if (o.spectra) {
    ProgressBar bar("spectra", o.verbosity);
    studies.spectra = weight_spectra(*engine, Watch{bar.fn(), stop.token()});
  }
  return studies;
}

// The model that another was made of, without the adapters that are the other's.
std::shared_ptr<const Engine> load_original(const Options& o) {
  if (o.original.empty()) return nullptr;
  ModelOptions options = o.model;
  options.model = o.original;
  options.adapters.clear();
  return load_engine(options, o.verbosity);
}

int run(const Options& o) {
  apply(o.verbosity);
  check(o.output);
  const Input input = read_input(o.text);
  const auto engine = load_engine(o.model, o.verbosity);
  const auto original = load_original(o);
  const std::vector<Token> tokens = tokens_of(input, *engine);
  const Interruption interruption;
  LayerStudy study;
  {
    ProgressBar bar("reading", o.verbosity);
    LayerOptions options = o.layers;
    options.context = o.model.context;
    study = study_layers(engine, tokens, options, Watch{bar.fn(), interruption.token()});
  }
  const MatrixStudies matrices = matrix_studies(o, engine, original, tokens, interruption);
  const auto without = ablation(o, engine, tokens, interruption);
  Json figures = subject_json(*engine, tokens);
  figures.update(to_json(study));
  Report report = layers_report(study, *engine);
  if (without) {
    figures["ablation"] = to_json(*without);
    add_to(report, *without);
  }
  add_to(figures, matrices);
  add_to(report, matrices);
  write_study(o.output, "layers.json", figures, report,
              summary(study) + (without ? summary(*without) : ""));
  return kOk;
}

}  // namespace

void add_study_layers(Program& program, CLI::App& study) {
  add_verb<Options>(program, "layers", "Show what each layer does to a text", setup, run, &study);
}

}  // namespace lapidary::cli
