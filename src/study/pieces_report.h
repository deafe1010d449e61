// How means over pieces of a text are said.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "lapidary/attention_study.h"

namespace lapidary {

// "0.1234 ± 0.0056", with so many decimals.
std::string measured(const MeanOfPieces& value, int decimals);
// {"mean": 0.1234, "margin": 0.0056}; of one piece the margin is null.
nlohmann::ordered_json to_json(const MeanOfPieces& value);

}  // namespace lapidary
