// lapidary isolate report: the page of runs.
#include <filesystem>

#include <fmt/format.h>

#include "io/output_file.h"
#include "isolate/report.h"
#include "isolate_options.h"

namespace lapidary::cli {

namespace {

struct ReportVerb {
  Verbosity verbosity;
  std::vector<std::string> runs;
  std::string output;
  bool json = false;
};

void setup_report(CLI::App& verb, ReportVerb& o) {
  verb.add_option("RUN", o.runs, "Folders of isolate run; the first is shown in full")
      ->type_name("RUN..")
      ->required();
  verb.add_option("-o,--output", o.output, "Page to write (report.html in the first folder)")
      ->type_name("FILE");
  verb.add_flag("--json", o.json, "Print one JSON document instead")->group("Output");
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "Figures are computed again from what the runs stored; no model is needed.\n"
      "\n"
      "Examples:\n"
      "  lapidary isolate report run\n"
      "  lapidary isolate report gemma-2-2b gemma-2-9b gemma-3-12b -o models.html");
}

int run_report(const ReportVerb& o) {
  apply(o.verbosity);
  std::vector<IsolationResult> runs;
  for (const std::string& folder : o.runs) {
    runs.push_back(read_result(folder));
    for (const std::string& remark : remarks(runs.back())) note("lapidary: warning: " + remark);
  }
  if (o.json) {
    Json list = Json::array();
    for (const IsolationResult& run : runs) list.push_back(to_json(run));
    out_json(list.size() == 1 ? list[0] : Json{{"runs", list}});
    return kOk;
  }
  const std::filesystem::path page =
      o.output.empty() ? runs[0].folder.path() / "report.html" : std::filesystem::path(o.output);
  write_file(page, render(isolation_report(runs), ReportFormat::kHtml));
  out(page.string() + "\n");
  return kOk;
}

}  // namespace

void add_isolate_report(Program& program, CLI::App& isolate) {
  add_verb<ReportVerb>(program, "report", "Draw the page of a run, or of several", setup_report,
                       run_report, &isolate);
}

}  // namespace lapidary::cli
