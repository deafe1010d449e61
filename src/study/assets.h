// Files compiled in by src/CMakeLists.txt.
#pragma once

#include <string_view>

namespace lapidary::assets {

extern const std::string_view kStudyCss;         // study.css
extern const std::string_view kAttentionJs;      // attention.js
extern const std::string_view kArchitectureCss;  // architecture.css
extern const std::string_view kArchitectureJs;   // architecture.js
extern const std::string_view kMatrixMapCss;     // matrix_map.css
extern const std::string_view kMatrixMapJs;      // matrix_map.js
extern const std::string_view kTokenTextJs;      // token_text.js

}  // namespace lapidary::assets
