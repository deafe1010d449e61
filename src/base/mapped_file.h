// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace lapidary {

// Owns the mapping: spans into it are valid while the object lives. Movable, not copyable.
// Pages are read from disk when first touched and can be dropped by the system at any time.
class MappedFile {
 public:
  // Throws Error{kInput} naming the path when it is missing, unreadable or not a regular file.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Takes the pages read so far off this process's memory; they are read again when touched. For
  // work that goes through a file larger than memory once.
  void release_pages() const;
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(const std::byte* data, size_t size, std::filesystem::path path);

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

}  // namespace lapidary
