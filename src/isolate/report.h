// What came of runs, as a page and as JSON.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "isolate/judgements.h"
#include "isolate/measures.h"
#include "isolate/run_folder.h"
#include "report/report.h"

namespace lapidary {

// A folder with what it was made of, and all its figures.
struct IsolationResult {
  IsolationFolder folder;
  std::vector<IsolationExample> examples = {};
  std::vector<IsolationPlan> plans = {};
  PlanOptions options = {};  // as far as figures depend on them
  std::vector<MeasuredOutput> outputs = {};
  std::vector<ConditionFigure> figures = {};
  std::vector<ConditionDifference> differences = {};
  std::vector<JudgedPair> judged = {};
  int64_t planned = 0;                // outputs, of which there may be fewer
  int64_t measured = 0;               // outputs that the model was asked about
  std::vector<RecordKey> empty = {};  // outputs without text
};
// Throws Error{kInput} where there is no run.
IsolationResult read_result(const std::filesystem::path& folder);

// What whoever reads the figures must know: that the run is not finished, and outputs without text.
std::vector<std::string> remarks(const IsolationResult& result);

// {"metrics": [...], "statistics": [...], "seconds", "outputs": [each with its "measures"], ...}
// and "judged" where there are judgements.
nlohmann::ordered_json to_json(const IsolationResult& result);

// One run in full; of several the first in full, and a table of all.
Report isolation_report(std::span<const IsolationResult> runs);

}  // namespace lapidary
