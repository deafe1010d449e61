// Hashes of files, as model hubs publish them and name blobs after them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace lapidary {

// All give lowercase hexadecimal digits. `read(bytes)` is called after each piece of a file, a MiB
// or less, and may throw. Throw Error{kResource} naming the path when it cannot be read.

// 64 digits.
std::string sha256(std::span<const std::byte> bytes);
std::string sha256_of_file(const std::filesystem::path& path,
                           const std::function<void(int64_t bytes)>& read = {});

// The hash of the first `size` bytes of a file, of the kind that `like` is: 64 digits are SHA-256,
// 40 are that of a git blob, SHA-1 over "blob SIZE\0" and the contents.
std::string blob_hash(const std::filesystem::path& path, int64_t size, std::string_view like,
                      const std::function<void(int64_t bytes)>& read);

}  // namespace lapidary
