// lapidary study activations: what a model computes on its way, kept and changed.
#include <map>
#include <optional>

#include <fmt/format.h>

#include "lapidary/activations.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "changes.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  std::vector<std::string> points = {"blocks.*.hook_resid_post"};
  std::string output;
  Changes changes;
  bool list = false;
  bool by_token = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  verb.add_option("--points", o.points, "Which to keep, with * and ? (blocks.*.hook_resid_post)")
      ->type_name("POINT")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_changes(verb, o.changes);
  verb.add_option("-o,--output", o.output,
                  "Write the activations to this safetensors file: a tensor per point, f32 "
                  "[tokens, columns], of heads [tokens, heads, columns of one]")
      ->type_name("FILE")
      ->group("Output");
  verb.add_flag("--list", o.list, "List the points and leave")->group("Output");
  verb.add_flag("--by-token", o.by_token, "Say what the changes do at each token")->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Points have the names of TransformerLens, and the activations are those of the same "
      "arithmetic as without looking: quantised weights, keys and values as they are cached. With "
      "changes the text is read twice, and what they do to its predictions is printed; -o keeps "
      "the activations with the changes. Changes come in the order zero, replace, mean, add.\n"
      "\n"
      "Examples:\n"
      "  lapidary study activations --list\n"
      "  lapidary study activations -p \"The capital of France is\" -o france.safetensors\n"
      "  lapidary study activations -f text.txt --zero 'blocks.*.attn.hook_z:0' --json\n"
      "  lapidary study activations -p \"The capital of Italy is\" --replace "
      "blocks.3.hook_resid_post=france.safetensors");
}

std::string list_text(const Config& config) {
  std::string text = fmt::format("{:<32}{:>8}\n", "point", "columns");
  for (const TapPoint& p : tap_points())
    text += fmt::format("{:<32}{:>8}  {}\n", (p.in_block ? "blocks.N." : "") + std::string(p.name),
                        p.cols(config), p.meaning);
  return text;
}

Json list_json(const Config& config) {
  Json list = Json::array();
  for (const TapPoint& p : tap_points())
    list.push_back({{"name", p.name},
                    {"in_block", p.in_block},
                    {"columns", p.cols(config)},
                    {"meaning", p.meaning}});
  return {{"layers", config.num_hidden_layers}, {"points", list}};
}

Json effect_json(const Effect& effect, bool by_token) {
  Json json = {{"predicted", effect.predicted},          {"nll", effect.nll_before},
               {"nll_changed", effect.nll_after},        {"kld_mean", effect.kld},
               {"top1_agreement", effect.top1},          {"seconds", effect.seconds_before},
               {"seconds_changed", effect.seconds_after}};
  if (by_token) {
    json["kld"] = effect.kld_by_token;
    json["nll_gain"] = effect.gain_by_token;
  }
  return json;
}

std::string effect_text(const Effect& effect, const std::vector<Token>& tokens,
                        const Engine& engine, bool by_token) {
  std::string text = fmt::format(
      "nll {:.4f} -> {:.4f} nats per token, KLD {:.4g}, the likeliest token stays at {:.1f} %\n"
      "read in {:.2f} s, with the changes in {:.2f}\n",
      effect.nll_before, effect.nll_after, effect.kld, 100 * effect.top1, effect.seconds_before,
      effect.seconds_after);
  for (size_t i = 0; by_token && i < effect.kld_by_token.size(); ++i) {
    const Token id = tokens[i + 1];
    const std::string piece = engine.has_tokenizer() && id < engine.tokenizer().size()
                                  ? Json(engine.tokenizer().piece(id)).dump()
                                  : std::to_string(id);
    text += fmt::format("{:>6}  {:<24} KLD {:>9.4g}  nll {:>+9.4f}\n", i + 1, piece,
                        effect.kld_by_token[i], effect.gain_by_token[i]);
  }
  return text;
}

struct Written {
  int64_t bytes = 0;
  double seconds = 0, tap_seconds = 0;
};

Written write_activations(const Options& o, const std::shared_ptr<const Engine>& engine,
                          const std::vector<Token>& tokens, const Tap& changes,
                          ActivationFile& file, const Watch& watch) {
  Written written{.bytes = file.bytes()};
  Session session(engine, o.model.context);
  session.set_tap([&, keep = file.tap()](const Activation& a) {
    const Stopwatch clock;
    if (changes) changes(a);
    keep(a);
    written.tap_seconds += clock.seconds();
  });
  const Stopwatch clock;
  session.append(tokens, watch);
  written.seconds = clock.seconds();
  file.finish();
  return written;
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.list) {
    if (!o.output.empty()) fail_usage("--list: it lists the points and writes nothing to -o");
    const auto engine = load_engine(o.model, o.verbosity);
    if (o.json)
      out_json(list_json(engine->config()));
    else
      out(list_text(engine->config()));
    return kOk;
  }
  const bool changing = !o.changes.empty();
  if (o.output.empty() && !changing)
    fail_usage("nothing to do: give -o to keep activations, or a change to see what it does");
  if (o.by_token && !changing) fail_usage("--by-token: there is no change to tell of");
  const Input input = read_input(o.text);
  const auto engine = load_engine(o.model, o.verbosity);
  const std::vector<Token> tokens = tokens_of(input, *engine);
  const Tap changes = tap_of(o.changes, engine->config());
  // Made before the work: a place that cannot be written is known now.
  const std::vector<ModelPoint> points = find_points(engine->config(), o.points);
  std::optional<ActivationFile> file;
  if (!o.output.empty())
    file.emplace(o.output, engine->config(), points, std::ssize(tokens),
                 std::map<std::string, std::string>{
                     {"model", engine->folder().filename().string()},
                     {"fingerprint", fmt::format("{:016x}", engine->fingerprint())}});
  const Interruption interruption;
  Json json = {{"tokens", tokens}};
  std::string text;
  if (changing) {
    ProgressBar bar("comparing", o.verbosity);
    const Effect effect =
        effect_of(engine, tokens, changes, o.model.context, Watch{bar.fn(), interruption.token()});
    json["effect"] = effect_json(effect, o.by_token);
    text += effect_text(effect, tokens, *engine, o.by_token);
  }
  if (file) {
    ProgressBar bar("reading", o.verbosity);
    const Written w =
        write_activations(o, engine, tokens, changes, *file, Watch{bar.fn(), interruption.token()});
    json["output"] = {{"file", o.output},
                      {"points", points.size()},
                      {"bytes", w.bytes},
                      {"seconds", w.seconds},
                      {"tap_seconds", w.tap_seconds}};
    text += fmt::format("{}: {} points of {} tokens, {}; {:.2f} s, of them {:.2f} for the taps\n",
                        o.output, points.size(), tokens.size(), bytes_text(w.bytes), w.seconds,
                        w.tap_seconds);
  }
  if (o.json)
    out_json(json);
  else
    out(text);
  return kOk;
}

}  // namespace

void add_study_activations(Program& program, CLI::App& study) {
  add_verb<Options>(program, "activations", "Keep or change what a model computes on its way",
                    setup, run, &study);
}

}  // namespace lapidary::cli
