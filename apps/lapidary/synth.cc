// lapidary synth: checkpoints of real shapes with random weights.
#include "lapidary/synth.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.h"
#include "base/fail.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::string preset;
  ShapeOverrides shape;
  SynthOptions synth;
  std::string folder;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("--preset", o.preset, "The released model whose shape it has; see below")
      ->type_name("NAME")
      ->required()
      ->group("Output");
  verb.add_option("-o,--output", o.folder, "The folder to make")
      ->type_name("DIR")
      ->required()
      ->group("Output");
  auto* bits = verb.add_option("--bits", o.synth.bits,
                               "Quantise as MLX does: 2, 3, 4, 5, 6 or 8 bits (default: dense)");
  bits->type_name("N")->group("Output");
  verb.add_option("--group-size", o.synth.group_size,
                  "Weights that share a scale: 32, 64 or 128 (64)")
      ->type_name("N")
      ->needs(bits)
      ->group("Output");
  choices(
      verb.add_option("--dtype", o.synth.dtype, "Of dense weights, or of scales and biases (bf16)")
          ->group("Output"),
      {"bf16", "f16", "f32"});
  verb.add_option("--seed", o.synth.seed, "The same seed makes the same bytes (0)")
      ->type_name("N")
      ->group("Output");
  const auto size = [&](const char* name, std::optional<int>& value, const char* what) {
    verb.add_option(name, value, what)->type_name("N")->group("Sizes other than the preset's");
  };
  size("--layers", o.shape.layers, "Layers");
  size("--hidden", o.shape.hidden, "Width of the residual stream");
  size("--ffn", o.shape.ffn, "Width inside the MLP");
  size("--heads", o.shape.heads, "Query heads");
  size("--kv-heads", o.shape.kv_heads, "Key/value heads");
  size("--head-dim", o.shape.head_dim, "Width of a head");
  size("--vocab", o.shape.vocab, "Rows of the embedding");
  size("--window", o.shape.window, "Keys that a sliding layer sees");
  add_threads(verb, o.synth.threads, "General");
  add_verbosity(verb, o.verbosity);
  verb.footer(fmt::format("Presets:\n  {}", fmt::join(preset_names(), ", ")) +
              "\n\n"
              "The model has no tokenizer: run it with --ids. What it says means nothing.\n"
              "\n"
              "Examples:\n"
              "  lapidary synth --preset gemma-3-1b --bits 4 -o /tmp/1b\n"
              "  lapidary synth --preset gemma-2-27b --layers 2 -o /tmp/two-layers");
}

int run(const Options& o) {
  apply(o.verbosity);
  const Config config = with_overrides(preset(o.preset), o.shape);
  const Interruption interruption;
  const Stopwatch clock;
  {
    ProgressBar bar("writing", o.verbosity);
    synthesize(config, o.synth, o.folder, Watch{bar.fn(), interruption.token()});
  }
  if (!o.verbosity.quiet) {
    const auto bytes =
        std::filesystem::file_size(std::filesystem::path(o.folder) / "model.safetensors");
    note(fmt::format("{}: {} in {:.1f} s", o.folder, bytes_text(static_cast<int64_t>(bytes)),
                     clock.seconds()));
  }
  return kOk;
}

}  // namespace

void add_synth(Program& program) {
  add_verb<Options>(program, "synth", "Make a random model of a real shape", setup, run);
}

}  // namespace lapidary::cli
