// The hashes that name the hub's blobs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace lapidary {

// The hash of the first `size` bytes of a file, of the kind that `like` is: 64 digits are SHA-256,
// 40 are that of a git blob, SHA-1 over "blob SIZE\0" and the contents. `read(bytes)` is called
// after each piece and may throw. Throws Error{kResource} when that much cannot be read.
std::string blob_hash(const std::filesystem::path& path, int64_t size, std::string_view like,
                      const std::function<void(int64_t bytes)>& read);

}  // namespace lapidary
