// A run as a page with charts.
#pragma once

#include <filesystem>

#include "report/report.h"

namespace lapidary {

// Of metrics.jsonl, ranks.jsonl and config.json of a run's folder; long runs are thinned out to
// about a thousand points a chart. Throws Error{kInput} for files that are not what a run leaves.
Report run_report(const std::filesystem::path& run);

}  // namespace lapidary
