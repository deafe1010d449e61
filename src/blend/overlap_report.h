// Overlaps of adapters as a table, records, and a page with charts.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lapidary/blend.h"

#include "report/report.h"

namespace lapidary {

// `names` of the parts, for people.
Report overlap_report(const std::vector<std::string>& names,
                      std::span<const AdapterOverlap> overlaps);

}  // namespace lapidary
