// lapidary study activations: what a model computes on its way, kept and changed.
#include <fmt/format.h>

#include "lapidary/activations.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "study_verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  TextOptions text;
  std::vector<std::string> points = {"blocks.*.hook_resid_post"};
  std::string output;
  std::vector<std::string> zero, replace, mean, add;
  bool list = false;
  bool by_token = false;
  bool json = false;
};

CLI::Option* add_changes(CLI::App& verb, const char* flag, std::vector<std::string>& list,
                         const char* type, const char* help) {
  return verb.add_option(flag, list, help)
      ->type_name(type)
      ->allow_extra_args(false)
      ->group("Changes");
}

void setup(CLI::App& verb, Options& o) {
  add_text(verb, o.text, true);
  verb.add_option("--points", o.points, "Which to keep, with * and ? (blocks.*.hook_resid_post)")
      ->type_name("POINT")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_changes(verb, "--zero", o.zero, "POINT[:HEAD]", "Set to zero");
  add_changes(verb, "--replace", o.replace, "POINT[:HEAD]=FILE",
              "Take the values of a file of activations: those of the same position");
  add_changes(verb, "--mean", o.mean, "POINT[:HEAD]=FILE",
              "Take the mean over the positions of a file of activations");
  add_changes(verb, "--add", o.add, "POINT=FILE[:SCALE]",
              "Add a vector, or a row for each position");
  verb.add_option("-o,--output", o.output,
                  "Write the activations to this safetensors file: a tensor per point, f32 "
                  "[tokens, columns]")
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

// "POINT=FILE": both, or Error{kUsage}.
std::pair<std::string, std::string> parts_of(const std::string& text, const char* flag) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals + 1 == text.size())
    fail_usage("{}: expected POINT=FILE, found {}", flag, text);
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::vector<Intervention> changes_of(const Options& o, const Config& config) {
  std::vector<Intervention> all;
  const auto take = [&](std::vector<Intervention> found) {
    for (Intervention& change : found) all.push_back(std::move(change));
  };
  const auto from_file = [&](const std::string& text, const char* flag, bool mean) {
    const auto [point, file] = parts_of(text, flag);
    std::vector<Intervention> found = find_interventions(config, point);
    read_values(found, file, mean);
    return found;
  };
  for (const std::string& text : o.zero) take(find_interventions(config, text));
  for (const std::string& text : o.replace) take(from_file(text, "--replace", false));
  for (const std::string& text : o.mean) take(from_file(text, "--mean", true));
  for (const std::string& text : o.add) {
    const auto [point, rest] = parts_of(text, "--add");
    const AdapterUse use = adapter_use(rest, "--add");
    std::vector<Intervention> found = find_interventions(config, point);
    for (Intervention& change : found) {
      change.kind = Intervention::Kind::kAdd;
      change.strength = static_cast<float>(use.strength);
    }
    read_values(found, use.path, false);
    take(std::move(found));
  }
  return all;
}

Json effect_json(const Effect& effect, bool by_token) {
  Json json = {{"predicted", effect.predicted},
               {"nll", effect.nll_before},
               {"nll_changed", effect.nll_after},
               {"kld_mean", effect.kld},
               {"top1_agreement", effect.top1}};
  if (by_token) {
    json["kld"] = effect.kld_by_token;
    json["nll_gain"] = effect.gain_by_token;
  }
  return json;
}

std::string effect_text(const Effect& effect, const std::vector<Token>& tokens,
                        const Engine& engine, bool by_token) {
  std::string text = fmt::format(
      "nll {:.4f} -> {:.4f} nats per token, KLD {:.4g}, the likeliest token stays at {:.1f} %\n",
      effect.nll_before, effect.nll_after, effect.kld, 100 * effect.top1);
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
  int64_t points = 0, bytes = 0;
  double seconds = 0, tap_seconds = 0;
};

Written write_activations(const Options& o, const std::shared_ptr<const Engine>& engine,
                          const std::vector<Token>& tokens, const Tap& changes,
                          const Watch& watch) {
  const std::vector<ModelPoint> points = find_points(engine->config(), o.points);
  ActivationFile file(o.output, engine->config(), points, std::ssize(tokens),
                      {{"model", engine->folder().filename().string()},
                       {"fingerprint", fmt::format("{:016x}", engine->fingerprint())}});
  Written written{.points = std::ssize(points), .bytes = file.bytes()};
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
    const auto engine = load_engine(o.model, o.verbosity);
    if (o.json)
      out_json(list_json(engine->config()));
    else
      out(list_text(engine->config()));
    return kOk;
  }
  const bool changing = !(o.zero.empty() && o.replace.empty() && o.mean.empty() && o.add.empty());
  if (o.output.empty() && !changing)
    fail_usage("nothing to do: give -o to keep activations, or a change to see what it does");
  const Input input = read_input(o.text);
  const auto engine = load_engine(o.model, o.verbosity);
  const std::vector<Token> tokens = tokens_of(input, *engine);
  Tap changes;
  if (changing) changes = intervening(changes_of(o, engine->config()));
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
  if (!o.output.empty()) {
    ProgressBar bar("reading", o.verbosity);
    const Written w =
        write_activations(o, engine, tokens, changes, Watch{bar.fn(), interruption.token()});
    json["output"] = {{"file", o.output},
                      {"points", w.points},
                      {"bytes", w.bytes},
                      {"seconds", w.seconds},
                      {"tap_seconds", w.tap_seconds}};
    text += fmt::format("{}: {} points of {} tokens, {}; {:.2f} s, of them {:.2f} for the taps\n",
                        o.output, w.points, tokens.size(), bytes_text(w.bytes), w.seconds,
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
