// lapidary isolate judge: which of two conditions' answers another model prefers.
#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "base/fail.h"
#include "bench_options.h"
#include "isolate/judge.h"
#include "isolate/measures.h"
#include "isolate_options.h"

namespace lapidary::cli {

namespace {

constexpr const char* kKeyVariable = "OPENAI_API_KEY";

struct JudgeVerb {
  Verbosity verbosity;
  std::string run;
  EndpointOptions endpoint;
  std::string model;
  std::string key_variable;
  std::string a = "semantic", b = "sequential";
  std::vector<std::string> groups;
  bool json = false;
};

void setup_judge(CLI::App& verb, JudgeVerb& o) {
  verb.add_option("RUN", o.run, "Folder of isolate run")->type_name("RUN")->required();
  verb.add_option("--endpoint", o.endpoint.url,
                  "Of the judge: an OpenAI-compatible API, as http://localhost:8080/v1")
      ->type_name("URL")
      ->required();
  verb.add_option("--model", o.model, "The judge's name there (its only one)")->type_name("NAME");
  verb.add_option("--api-key-env", o.key_variable,
                  "Environment variable that has the key (OPENAI_API_KEY)")
      ->type_name("NAME");
  verb.add_option("--timeout", o.endpoint.timeout_seconds,
                  "Seconds to wait for an answer before it is asked for again (120)")
      ->type_name("N")
      ->check(between<int>(1, 86400));
  verb.add_option("-a", o.a, "The condition whose wins are counted (semantic)")
      ->type_name("CONDITION")
      ->group("Comparison");
  verb.add_option("-b", o.b, "The condition that it is compared with (sequential)")
      ->type_name("CONDITION")
      ->group("Comparison");
  verb.add_option("--groups", o.groups, "outputs, synthesis, questions (all)")
      ->type_name("LIST")
      ->delimiter(',')
      ->group("Comparison");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "The judge sees the prompt, the expected answer and both answers, without the conditions' "
      "names, once in each order: where the orders disagree, it is a tie. Judgements are kept in "
      "RUN/judgements.jsonl, nothing is asked twice, and isolate report shows them. Ctrl-C keeps "
      "what is there, and the same command goes on.\n"
      "\n"
      "Examples:\n"
      "  lapidary isolate judge run --endpoint http://localhost:8080\n"
      "  lapidary isolate judge run --endpoint https://api.openai.com --model gpt-4o\n"
      "  lapidary isolate judge run --endpoint URL -b message_only --groups synthesis");
}

std::string key_of(const JudgeVerb& o) {
  const bool named = !o.key_variable.empty();
  const char* key = std::getenv(named ? o.key_variable.c_str() : kKeyVariable);
  if (named && key == nullptr) fail_usage("--api-key-env: {} is not set", o.key_variable);
  return key == nullptr ? "" : key;
}

std::vector<std::string> groups_of(const JudgeVerb& o) {
  const auto known = output_groups();
  for (const std::string& group : o.groups)
    if (std::ranges::find(known, group) == known.end())
      fail_usage("--groups: '{}' given, expected outputs, synthesis or questions", group);
  return o.groups.empty() ? std::vector<std::string>(known.begin(), known.end()) : o.groups;
}

std::string to_text(const JudgedPair& pair) {
  const auto percent = [](const std::optional<double>& share) {
    return share ? fmt::format("{:.1f} %", 100 * *share) : "-";
  };
  std::string text =
      fmt::format("{} against {}, judged by {}\n\n", name_of(pair.a), name_of(pair.b), pair.model);
  text += fmt::format("{:<10}{:>9}{:>6}{:>6}{:>8}{:>9}{:>10}{:>15}{:>7}\n", "", "examples", "wins",
                      "ties", "losses", "invalid", "win rate", "95 %", "p");
  for (const JudgeFigures& f : pair.figures)
    text += fmt::format(
        "{:<10}{:>9}{:>6}{:>6}{:>8}{:>9}{:>10}{:>15}{:>7}\n", f.group, f.examples, f.wins, f.ties,
        f.losses, f.invalid, percent(f.win_rate),
        f.interval ? fmt::format("{:.1f} … {:.1f}", 100 * f.interval->low, 100 * f.interval->high)
                   : "-",
        f.p ? fmt::format("{:.3f}", *f.p) : "-");
  const JudgeFigures& all = pair.figures.back();
  return text + fmt::format("\nboth orders agree: {}; verdicts for the answer shown first: {}\n",
                            percent(all.consistency), percent(all.first_share));
}

int run_judge(const JudgeVerb& o) {
  apply(o.verbosity);
  const Condition a = condition_named(o.a), b = condition_named(o.b);
  if (a == b) fail_usage("-a and -b: '{}' given for both, expected two conditions", o.a);
  const std::vector<std::string> groups = groups_of(o);
  EndpointOptions options = o.endpoint;
  options.key = key_of(o);
  options.key_name = o.key_variable.empty() ? kKeyVariable : o.key_variable;
  IsolationFolder folder(o.run);
  const auto [examples, plans] = folder.kept();
  const std::vector<OutputPair> pairs = output_pairs(examples, plans, folder, a, b, groups);
  if (pairs.empty())
    fail("{}: no output of these groups was made under both {} and {}", o.run, o.a, o.b);
  const Interruption interruption;
  ChatEndpoint endpoint(options, interruption.token());
  int64_t asked = 0;
  std::string model = o.model;
  try {
    if (model.empty()) model = endpoint.only_model();
    ProgressBar bar("judgements", o.verbosity);
    asked = judge_outputs(endpoint, model, examples, pairs, folder,
                          Watch{bar.fn(), interruption.token()});
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInterrupted && !o.verbosity.quiet)
      note("lapidary: interrupted; the same command goes on from here");
    throw;
  }
  const JudgedPair judged = judged_pair(examples, plans, folder, model, a, b, groups);
  if (o.json) {
    Json json = to_json(judged, examples);
    json["judgements_made"] = asked;
    out_json(json);
  } else {
    out(to_text(judged));
  }
  const JudgeFigures& all = judged.figures.back();
  if (all.wins + all.ties + all.losses > 0) return kOk;
  note(fmt::format("lapidary: warning: {} gave no verdict that can be read, all {} are invalid",
                   judged.model, all.invalid));
  return kFailed;
}

}  // namespace

void add_isolate_judge(Program& program, CLI::App& isolate) {
  add_verb<JudgeVerb>(program, "judge", "Ask another model which condition's answers are better",
                      setup_judge, run_judge, &isolate);
}

}  // namespace lapidary::cli
