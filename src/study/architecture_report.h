// The page that draws a model, and what it says as JSON.
#pragma once

#include "lapidary/architecture_study.h"

#include "report/report.h"

namespace lapidary {

// `context`: where the page begins; its slider goes on to what the model was made for.
Report architecture_report(const Architecture& a, int64_t context);
nlohmann::ordered_json to_json(const Architecture& a);

}  // namespace lapidary
