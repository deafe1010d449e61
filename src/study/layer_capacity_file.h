// The figures of a study of capacity by layer as JSON, which is also how finished runs are kept.
#pragma once

#include <filesystem>

#include "lapidary/layer_capacity_study.h"

#include "base/json.h"

namespace lapidary {

OrderedJson to_json(const LayerCapacityOptions& options);
OrderedJson to_json(const LayerCapacityRun& run);
OrderedJson to_json(const LayerCapacityStudy& study);

// Throws Error{kInput} naming file and field.
LayerCapacityRun read_layer_capacity_run(const std::filesystem::path& file);

}  // namespace lapidary
