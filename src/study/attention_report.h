// The page of a study of attention, and what it says as JSON.
#pragma once

#include "lapidary/attention_study.h"

#include "report/report.h"

namespace lapidary {

Report attention_report(const AttentionStudy& study, const Engine& engine);
nlohmann::ordered_json to_json(const AttentionStudy& study);
nlohmann::ordered_json to_json(const HeadFigures& head);

}  // namespace lapidary
