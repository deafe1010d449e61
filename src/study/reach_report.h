// The page of a study of the reach of attention, and what it says as JSON.
#pragma once

#include "lapidary/attention_study.h"

#include "report/report.h"

namespace lapidary {

Report reach_report(const ReachStudy& study, const Engine& engine);
nlohmann::ordered_json to_json(const ReachStudy& study);
// "layer 5 made local", "all global layers made local"
std::string name_of(const ReachChange& change);

}  // namespace lapidary
