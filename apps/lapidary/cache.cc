// lapidary cache: the state of the hub's cache.
#include <fmt/format.h>

#include "base/fail.h"
#include "command_line.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Nothing {};

struct VerifyOptions {
  Verbosity verbosity;
  std::string name;
  bool json = false;
};

void setup_verify(CLI::App& verb, VerifyOptions& o) {
  verb.add_option("NAME", o.name, "The model (default: all)")->type_name("ORG/NAME");
  verb.add_flag("--json", o.json, "Print one JSON document")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Reads every file and compares it with the hash that it was fetched under. Exits with 1 if "
      "one differs or is missing, and names it.\n"
      "\n"
      "Examples:\n"
      "  lapidary cache verify\n"
      "  lapidary cache verify google/gemma-3-1b-it --json");
}

Json to_json(const CacheCheck& check) {
  Json faults = Json::array();
  for (const CacheFault& fault : check.faults)
    faults.push_back(
        {{"path", fault.path.string()}, {"files", fault.files}, {"problem", fault.problem}});
  return {{"blobs", check.blobs}, {"bytes", check.bytes}, {"faults", faults}};
}

int run_verify(const VerifyOptions& o) {
  apply(o.verbosity);
  std::optional<HubName> only;
  if (!o.name.empty()) only = hub_name(o.name);
  if (only && !only->revision.empty())
    fail_usage("'{}': all revisions are checked, name the model alone", o.name);
  const Interruption interruption;
  CacheCheck check;
  {
    ProgressBar bar("checking", o.verbosity, ProgressBar::Unit::kBytes);
    check = verify_cache(hub_cache_folder(), only, Watch{bar.fn(), interruption.token()});
  }
  if (o.json) {
    out_json(to_json(check));
  } else {
    for (const CacheFault& fault : check.faults)
      out(fmt::format("{}: {}{}{}\n", fault.path.string(), fault.problem,
                      fault.files.empty() ? "" : "; it is ", joined(fault.files, ", ")));
    if (!o.verbosity.quiet)
      note(fmt::format("lapidary: {} of {} checked, {} bad", count_text(check.blobs),
                       bytes_text(check.bytes), check.faults.size()));
  }
  if (check.faults.empty()) return kOk;
  note("hint: delete the files that are named, and lapidary pull fetches them again");
  return kFailed;
}

}  // namespace

void add_cache(Program& program) {
  CLI::App& cache = add_verb<Nothing>(
      program, "cache", "Check the models that were fetched",
      [](CLI::App& verb, Nothing&) {
        verb.require_subcommand(1);
        verb.footer("Examples:\n  lapidary cache verify");
      },
      [](const Nothing&) { return kOk; });
  add_verb<VerifyOptions>(program, "verify", "Compare every file with its hash", setup_verify,
                          run_verify, &cache);
}

}  // namespace lapidary::cli
