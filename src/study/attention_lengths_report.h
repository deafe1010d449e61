// The page of a study of attention by length, and what it says as JSON.
#pragma once

#include "lapidary/attention_study.h"

#include "report/report.h"

namespace lapidary {

Report attention_lengths_report(const AttentionByLength& study, const Engine& engine);
nlohmann::ordered_json to_json(const AttentionByLength& study);

}  // namespace lapidary
