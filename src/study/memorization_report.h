// What was learnt by heart, as JSON and as a page.
#pragma once

#include "lapidary/memorization_study.h"

#include "base/json.h"
#include "report/report.h"

namespace lapidary {

OrderedJson to_json(const Membership& membership);
OrderedJson to_json(const MemorizationStudy& study);
Report memorization_report(const MemorizationStudy& study, const Engine& model,
                           const Engine& reference);

}  // namespace lapidary
