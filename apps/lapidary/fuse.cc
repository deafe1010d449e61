// lapidary fuse: adapters made part of a model's weights.
#include "lapidary/fuse.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/fail.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  std::string output;
  FuseOptions fuse;
  bool no_check = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_model(verb, o.model);
  add_adapters(verb, o.model);
  verb.get_option("--adapter")->required();
  verb.add_option("-o,--output", o.output, "The folder to write")
      ->type_name("DIR")
      ->required()
      ->group("Output");
  verb.add_flag("-d,--dequantize", o.fuse.dequantize,
                "Write dense weights (default: each matrix as it was stored)")
      ->group("Output");
  verb.add_flag("--force", o.fuse.overwrite, "Replace the model that is there")->group("Output");
  verb.add_flag("--no-check", o.no_check, "Do not compare the result with the model and adapters")
      ->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_threads(verb, o.fuse.threads, "General");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "A quantised matrix is decoded, added to, and quantised anew, which rounds the update: how "
      "much of it is lost is said. The result is read again, and the same tokens go through it and "
      "through the model with the adapters beside it; what fails is not put in place, nor is a "
      "result in which nothing changed.\n"
      "\n"
      "Examples:\n"
      "  lapidary fuse -m ~/models/gemma-3-1b-it --adapter tuned -o 1b-tuned\n"
      "  lapidary fuse -m 1b-4bit --adapter style --adapter facts:0.5 -o 1b-both --dequantize");
}

const FusedMatrix& worst_of(const Fusion& fusion) {
  return *std::ranges::max_element(fusion.matrices, {}, &FusedMatrix::lost);
}

Json result_json(const Options& o, const Fusion& fusion, double seconds) {
  const Conversion& made = fusion.conversion;
  Json json = {{"output", o.output},  {"tensors", made.tensors}, {"changed", made.changed},
               {"bytes", made.bytes}, {"seconds", seconds},      {"check", nullptr}};
  if (!made.check) return json;
  Json matrices = Json::array();
  for (const FusedMatrix& m : fusion.matrices)
    matrices.push_back({{"name", m.name}, {"update", m.update}, {"lost", m.lost}});
  json["update"] = fusion.update;
  json["lost"] = fusion.lost;
  json["matrices"] = std::move(matrices);
  json["check"] = {{"weight_error", made.check->weight_error},
                   {"tokens", made.check->tokens},
                   {"kld_mean", made.check->kld_mean},
                   {"top1_agreement", made.check->top1_agreement},
                   {"logit_error", made.check->logit_error},
                   {"logit_error_limit", made.check->logit_error_limit}};
  return json;
}

void print_result(const Options& o, const Fusion& fusion, double seconds) {
  const Conversion& made = fusion.conversion;
  note(fmt::format("{}: {} of {} tensors changed, {}, in {:.1f} s", o.output, made.changed,
                   made.tensors, bytes_text(made.bytes), seconds));
  if (!made.check) return note("not checked");
  const FusedMatrix& worst = worst_of(fusion);
  note(
      fmt::format("the update is {:.3g} % of the weights it changes; storing the result put it off "
                  "by {:.3g} % of itself, most in {} ({:.3g} %)",
                  100 * fusion.update, 100 * fusion.lost, worst.name, 100 * worst.lost));
  note(
      fmt::format("checked: against the adapters at run time, over {} tokens, KLD {:.3g}, the same "
                  "likeliest token {:.0f} %",
                  made.check->tokens, made.check->kld_mean, 100 * made.check->top1_agreement));
}

int run(const Options& o) {
  apply(o.verbosity);
  FuseOptions options = o.fuse;
  options.check = !o.no_check;
  options.adapters = engine_options(o.model).adapters;
  const auto model = model_folder(o.model, o.verbosity);
  const Interruption interruption;
  const Stopwatch clock;
  Fusion fusion;
  {
    ProgressBar bar("fusing", o.verbosity);
    fusion = fuse(model, o.output, options, Watch{bar.fn(), interruption.token()});
  }
  if (fusion.conversion.check && fusion.lost > 1)
    note(fmt::format(
        "lapidary: warning: storing the result put the update off by {:.3g} % of itself, "
        "more than the whole of it; beside the model, with --adapter, it stays as it is",
        100 * fusion.lost));
  if (o.json)
    out_json(result_json(o, fusion, clock.seconds()));
  else if (!o.verbosity.quiet)
    print_result(o, fusion, clock.seconds());
  return kOk;
}

}  // namespace

void add_fuse(Program& program) {
  add_verb<Options>(program, "fuse", "Make adapters part of a model's weights", setup, run);
}

}  // namespace lapidary::cli
