// The menu of lapidary experiments: a terminal, and keys.
#pragma once

#include <optional>

#include "common.h"
#include "experiment_runner.h"

namespace lapidary::cli {

// Shows the list until the user leaves, and runs what is chosen. Returns the exit code; nothing
// where the terminal cannot show a menu.
std::optional<int> show_menu(ExperimentRunner& runner);

// "done in 12 s", "failed (1)", "interrupted".
std::string outcome_text(const ExperimentRun& run);

}  // namespace lapidary::cli
