// Numbers in running text, in one spelling.
#pragma once

#include <string_view>
#include <vector>

#include "isolate/contamination.h"

namespace lapidary {

// In order. The key is currency, digits without thousands' commas, magnitude and unit: "$5M",
// "1200", "90%", "150ms", "18 month". Single digits that stand alone, numbers of list items and
// digits within a word ("p95") are no facts.
std::vector<Fact> find_numbers(std::string_view text);

}  // namespace lapidary
