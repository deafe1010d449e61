// What a run is, as JSON.
#pragma once

#include <span>

#include <nlohmann/json.hpp>

#include "isolate/run.h"

namespace lapidary {

// Goes to run.json: all that decides what is made. Threads, memory and how many outputs are decoded
// together are not of it.
nlohmann::ordered_json run_description(const Engine& engine,
                                       std::span<const IsolationExample> examples,
                                       std::span<const IsolationPlan> plans,
                                       const IsolationRunOptions& options);

}  // namespace lapidary
