// Plain text in chunks that are encoded one by one.
#pragma once

#include <cstddef>
#include <string_view>

namespace lapidary {

inline constexpr size_t kChunkBytes = 4096;          // after which a chunk ends with its line
inline constexpr size_t kLongestChunkBytes = 65536;  // where a line goes on for longer

// Bytes of the first chunk of `text`; 0 when more text is needed to tell. `last` says that there is
// no more. A chunk ends after line breaks, all that stand together, where Gemma's tokenizers cut
// too: encoding chunk by chunk gives the ids of the whole. Within a longer line it ends before a
// space, or without one between two characters.
size_t first_chunk(std::string_view text, bool last);

}  // namespace lapidary
