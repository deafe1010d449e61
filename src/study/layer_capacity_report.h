// A study of capacity by layer as a page.
#pragma once

#include <string>

#include "lapidary/layer_capacity_study.h"

#include "report/report.h"

namespace lapidary {

// "3", or "all".
// What is said with the figures: that they may be more.
inline constexpr const char* kLowerBound =
    "Lower bounds: whether more steps would bring more was not measured.";

std::string layer_name(const LayerCapacityRun& run);

Report layer_capacity_report(const LayerCapacityStudy& study);

}  // namespace lapidary
