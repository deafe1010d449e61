// A capacity study as a page.
#pragma once

#include <string>

#include "lapidary/capacity_study.h"

#include "report/report.h"

namespace lapidary {

Report capacity_report(const CapacityStudy& study);

// What keeps the figures from being capacities, a sentence for each size; empty where nothing does.
std::vector<std::string> capacity_remarks(const CapacityStudy& study);

}  // namespace lapidary
