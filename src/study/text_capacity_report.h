// A study of capacity on text as a page.
#pragma once

#include <string>
#include <vector>

#include "lapidary/text_capacity_study.h"

#include "report/report.h"

namespace lapidary {

Report text_capacity_report(const TextCapacityStudy& study);

// What was found of each size, or that it was not: sentences.
std::vector<std::string> text_capacity_findings(const TextCapacityStudy& study);

}  // namespace lapidary
