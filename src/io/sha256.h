// SHA-256 of bytes and files, as the sums that model hubs publish.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>

namespace lapidary {

// 64 lowercase hexadecimal digits.
std::string sha256(std::span<const std::byte> bytes);

// Of a file, read a few MiB at a time; `after_piece` may throw to stop. Throws Error{kInput} naming
// the path when it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path,
                           const std::function<void()>& after_piece = {});

}  // namespace lapidary
