// Fitted weights as a table, records, and charts for a page.
#pragma once

#include <string>
#include <vector>

#include "lapidary/blend.h"

#include "report/report.h"

namespace lapidary {

// `names` of the parts, for people.
Report fit_report(const std::vector<std::string>& names, const BlendFit& fit);

}  // namespace lapidary
