// Which lapidary this is.
#pragma once

#include <cstdint>
#include <string_view>

namespace lapidary {

std::string_view build_commit();  // abbreviated; "unknown" when built outside a repository
int64_t build_number();           // commits up to it; 0 then

}  // namespace lapidary
