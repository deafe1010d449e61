// Texts that are compiled in, by src/CMakeLists.txt.
#pragma once

#include <string_view>

namespace lapidary::assets {

extern const std::string_view kText;     // text.txt
extern const std::string_view kPrompts;  // prompts.jsonl

}  // namespace lapidary::assets
