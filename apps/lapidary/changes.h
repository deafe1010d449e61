// Flags that change activations on their way: ablation, patching, steering.
#pragma once

#include <string>
#include <vector>

#include "lapidary/activations.h"

#include "common.h"

namespace lapidary::cli {

struct Changes {
  std::vector<std::string> zero, replace, mean, add;
  bool empty() const { return zero.empty() && replace.empty() && mean.empty() && add.empty(); }
};

void add_changes(CLI::App& verb, Changes& changes);

// All changes, in the order zero, replace, mean, add; no tap where there are none. Throws
// Error{kUsage} naming the flag or the point, and as read_values().
Tap tap_of(const Changes& changes, const Config& config);

}  // namespace lapidary::cli
