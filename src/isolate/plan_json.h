// Plans as isolate plan prints them, and as run folders keep them.
#pragma once

#include <nlohmann/json.hpp>

#include "isolate/plan.h"

namespace lapidary {

// {"example", "conditions": {"sequential": {"caches": {"all": tokens}, "outputs": [...]}},
//  "warnings"}. A cache that waits for messages is counted with empty ones; "messages" says which.
nlohmann::ordered_json plan_json(const IsolationPlan& plan, const PlanOptions& options,
                                 const Tokenizer& tokenizer);

// All of a plan, to be read back.
nlohmann::ordered_json stored_plan(const IsolationPlan& plan);
// Throws Error{kInput} naming `where`.
IsolationPlan restored_plan(const nlohmann::json& json, const std::string& where);

}  // namespace lapidary
