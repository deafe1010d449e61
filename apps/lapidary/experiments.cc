// lapidary experiments: what there is to find out, as a menu.
#include <algorithm>
#include <filesystem>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "command_line.h"
#include "experiment_menu.h"
#include "gemma/load.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  std::vector<std::string> names;
  std::string folder = "experiments";
  std::string text;
  bool list = false;
  bool commands = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("names", o.names, "Experiments to run, or all; without any, a menu")
      ->type_name("NAME");
  verb.add_flag("--list", o.list, "Print the list instead of the menu")->group("Output");
  verb.add_flag("--commands", o.commands, "Print the commands of NAME.., and run nothing")
      ->group("Output");
  verb.add_option("-o,--output", o.folder,
                  "Folder for what comes of them; each has one of its own in it (experiments)")
      ->type_name("DIR")
      ->group("Output");
  verb.add_flag("--json", o.json, "Print one JSON document: of the list, or of the runs")
      ->group("Output");
  verb.add_option("--text", o.text, "What to read and to learn from (default: a built-in text)")
      ->type_name("FILE")
      ->check(CLI::ExistingFile.description(""))
      ->group("Input");
  add_model(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "In the menu: arrows or j and k move, Enter runs, Space marks several, a marks all, m "
      "changes the model, o opens the page, q leaves. Ctrl-C ends the experiment that runs. "
      "Without a terminal the list is printed.\n"
      "\n"
      "Experiments are other verbs with arguments, which are shown before they run. One that "
      "fails does not keep the next from running.\n"
      "\n"
      "Examples:\n"
      "  lapidary experiments\n"
      "  lapidary experiments layers attention -m ~/models/gemma-3-1b-it\n"
      "  lapidary experiments all -o everything");
}

Json to_json(const Experiment& e) {
  return {{"name", e.name}, {"group", e.group},       {"question", e.question},
          {"time", e.time}, {"commands", e.commands}, {"report", e.report}};
}

void print_list(bool json) {
  if (json) {
    Json list = Json::array();
    for (const Experiment& e : experiments()) list.push_back(to_json(e));
    return out_json({{"experiments", list}});
  }
  std::string text;
  std::string_view group;
  for (const Experiment& e : experiments()) {
    if (e.group != group) text += fmt::format("{}{}\n", group.empty() ? "" : "\n", e.group);
    group = e.group;
    bool first = true;
    for (const std::string& part : wrap(e.question, 57)) {
      text += fmt::format("  {:<19} {}\n", first ? e.name : "", part);
      first = false;
    }
    text += fmt::format("  {:<19} {}\n", "", e.time);
  }
  out(text + "\nTimes are estimates: the built-in model; one of 1B in 4 bits; on two cores.\n");
}

std::vector<const Experiment*> wanted(const std::vector<std::string>& names) {
  std::vector<const Experiment*> list;
  for (const std::string& name : names) {
    if (name == "all") {
      for (const Experiment& e : experiments()) list.push_back(&e);
    } else if (const Experiment* e = find_experiment(name)) {
      list.push_back(e);
    } else {
      throw Error(ErrorKind::kUsage, fmt::format("'{}' is no experiment", name),
                  "lapidary experiments --list has them");
    }
  }
  return list;
}

int run_all(ExperimentRunner& runner, const std::vector<const Experiment*>& list,
            const Options& o) {
  const Interruption interruption;
  std::vector<ExperimentRun> runs;
  for (const Experiment* e : list) {
    if (!o.verbosity.quiet)
      note(fmt::format("[{} of {}] {}: {}", runs.size() + 1, list.size(), e->name, e->question));
    runs.push_back(runner.run(*e));
    if (!o.json) out(read_file(runs.back().printed));
    if (interruption.requested() || runs.back().exit_code == kInterrupted) break;
  }
  std::string text;
  Json json = Json::array();
  for (const ExperimentRun& run : runs) {
    json.push_back(to_json(run));
    text += fmt::format("{:<20} {:<22} {}\n", run.name, outcome_text(run), run.report.string());
  }
  if (o.json)
    out_json({{"runs", json}});
  else
    out(text);
  const auto failed = [](const ExperimentRun& run) { return run.exit_code != kOk; };
  if (interruption.requested() || runs.back().exit_code == kInterrupted) return kInterrupted;
  return std::ranges::any_of(runs, failed) ? kFailed : kOk;
}

int run(const Options& o) {
  apply(o.verbosity);
  const auto list = wanted(o.names);
  if (o.commands && list.empty()) fail_usage("--commands: no experiment named");
  if (o.list && !list.empty()) fail_usage("--list: it names all; NAME is for those to run");
  const bool terminal = ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0;
  if (list.empty() && (o.list || o.json || !terminal)) {
    print_list(o.json);
    return kOk;
  }
  const std::filesystem::path model = model_folder(o.model, o.verbosity);
  check_model_path(model);
  ExperimentRunner runner(o.folder, std::filesystem::absolute(model).string(), o.text);
  if (o.commands) {
    for (const Experiment* e : list)
      for (const auto& command : runner.commands(*e))
        out(fmt::format("lapidary {}\n", fmt::join(command, " ")));
    return kOk;
  }
  if (!list.empty()) return run_all(runner, list, o);
  if (const std::optional<int> code = show_menu(runner)) return *code;
  note("lapidary: this terminal shows no menu; the list instead");
  print_list(false);
  return kOk;
}

}  // namespace

void add_experiments(Program& program) {
  add_verb<Options>(program, "experiments", "Choose among studies, trainings and measurements",
                    setup, run);
}

}  // namespace lapidary::cli
