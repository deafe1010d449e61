// The page of a study of memory, and what it says as JSON.
#pragma once

#include "lapidary/memory_study.h"

#include "report/report.h"

namespace lapidary {

Report memory_report(const MemoryStudy& study, const std::string& model);
nlohmann::ordered_json to_json(const MemoryStudy& study);

}  // namespace lapidary
