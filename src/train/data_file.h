// A file of training data, read in parts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lapidary {

// Stays open, so that a file that another replaces under its name is still the one that was read at
// first. Movable. Several threads may read at once.
class DataFile {
 public:
  // Throws Error{kInput} naming the path: missing, unreadable, not a regular file.
  explicit DataFile(std::filesystem::path path);
  DataFile(DataFile&& other) noexcept;
  DataFile& operator=(DataFile&&) = delete;
  ~DataFile();

  // Throws Error{kInput} when the file ends before.
  std::string read(int64_t offset, int64_t size) const;

  int64_t size() const { return size_; }  // when it was opened
  std::string name() const { return path_.string(); }

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// For telling whether bytes are still the same ones, not for adversaries.
uint64_t hash_of(std::string_view bytes);

}  // namespace lapidary
