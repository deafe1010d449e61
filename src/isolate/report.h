// What came of runs, as a page and as JSON.
#pragma once

#include <span>
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
};
// Throws Error{kInput} where there is no run.
IsolationResult read_result(const std::filesystem::path& folder);

// {"metrics": [...], "statistics": [...], "seconds", "outputs": [each with its "measures"], ...}
// and "judged" where there are judgements.
nlohmann::ordered_json to_json(const IsolationResult& result);

// One run in full; of several the first in full, and a table of all.
Report isolation_report(std::span<const IsolationResult> runs);

}  // namespace lapidary
