// lapidary rm: models out of the hub's cache.
#include <cstdio>
#include <unistd.h>

#include <fmt/format.h>

#include "command_line.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  std::string name;
  bool yes = false;
  bool json = false;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("NAME", o.name, "The model, or one revision of it")
      ->type_name("ORG/NAME[@REVISION]")
      ->required();
  verb.add_flag("-y,--yes", o.yes, "Do not ask")->group("General");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Files that another revision uses stay. Asks first when standard input is a terminal. "
      "REVISION is a branch, a tag, or a commit as lapidary list shows it.\n"
      "\n"
      "Examples:\n"
      "  lapidary rm google/gemma-3-1b-it\n"
      "  lapidary rm google/gemma-3-1b-it@dcc83ea --yes");
}

bool confirmed(const std::string& question) {
  std::fprintf(stderr, "%s [y/N] ", question.c_str());
  std::string answer;
  for (char c = 0; ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n';) answer += c;
  return answer == "y" || answer == "Y" || answer == "yes";
}

int run(const Options& o) {
  apply(o.verbosity);
  const HubName name = hub_name(o.name);
  const std::filesystem::path cache = hub_cache_folder();
  const Removal removal = plan_removal(cache, name);
  const std::string what =
      removal.whole_model
          ? removal.repo
          : fmt::format("revision {} of {}", removal.commits.front().substr(0, 7), removal.repo);
  if (!o.yes && ::isatty(STDIN_FILENO) &&
      !confirmed(fmt::format("Remove {} and free {}?", what, bytes_text(removal.bytes)))) {
    note("lapidary: nothing was removed");
    return kFailed;
  }
  const int64_t freed = remove_cached(cache, removal);
  if (o.json)
    out_json({{"model", removal.repo},
              {"commits", removal.commits},
              {"refs", removal.refs},
              {"whole_model", removal.whole_model},
              {"freed_bytes", freed}});
  else if (!o.verbosity.quiet)
    note(fmt::format("{}: removed, {} freed", what, bytes_text(freed)));
  return kOk;
}

}  // namespace

void add_rm(Program& program) {
  add_verb<Options>(program, "rm", "Remove a model that was fetched", setup, run);
}

}  // namespace lapidary::cli
