// The pictures of an isolation report: HTML and SVG that report.css styles.
#pragma once

#include <string>

#include "isolate/plan.h"
#include "isolate/run_folder.h"

namespace lapidary {

// Which turns lie in which cache, a bar per cache, as long as its tokens; what is heard is hatched.
std::string cache_map(const IsolationExample& example, const IsolationPlan& plan,
                      const IsolationFolder& folder);

// Whose output goes to whom.
std::string message_graph(const IsolationExample& example);

// When contexts were read and outputs made, a line per condition and cluster.
std::string time_line(const IsolationExample& example, const IsolationPlan& plan,
                      const IsolationFolder& folder);

// The clusters' colours.
std::string legend(const IsolationExample& example);

}  // namespace lapidary
