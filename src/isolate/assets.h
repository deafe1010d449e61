// Files compiled in by src/CMakeLists.txt.
#pragma once

#include <string_view>

namespace lapidary::assets {

extern const std::string_view kIsolateCss;  // report.css

}  // namespace lapidary::assets
