// The ranks of a run on its page.
#pragma once

#include <span>

#include "base/json.h"
#include "report/report.h"

namespace lapidary {

// Adds charts of the lines of ranks.jsonl, and layers by kinds of matrices as they are in the end.
// Throws Error{kInput} for lines that lack something.
void add_ranks(std::span<const Json> lines, Report& report);

}  // namespace lapidary
