// The figures of a capacity study as JSON, which is also how finished runs are kept.
#pragma once

#include <filesystem>

#include "lapidary/capacity_study.h"

#include "base/json.h"

namespace lapidary {

OrderedJson to_json(const CapacityOptions& options);
OrderedJson to_json(const CapacityRun& run);
OrderedJson to_json(const CapacityStudy& study);

// Throws Error{kInput} naming file and field.
CapacityRun read_capacity_run(const std::filesystem::path& file);

}  // namespace lapidary
