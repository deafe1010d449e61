// The figures of a study of capacity on text as JSON, which is also how finished runs are kept.
#pragma once

#include <filesystem>

#include "lapidary/text_capacity_study.h"

#include "base/json.h"

namespace lapidary {

OrderedJson to_json(const TextCapacityOptions& options, const TextSequences& text);
OrderedJson to_json(const TextCapacityRun& run);
OrderedJson to_json(const TextCapacityStudy& study);

// Throws Error{kInput} naming file and field.
TextCapacityRun read_text_capacity_run(const std::filesystem::path& file);

}  // namespace lapidary
