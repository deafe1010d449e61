// A file that is there whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

namespace lapidary {

// Makes the open file `size` bytes long, of zeros, and takes the room for them where the file
// system can do that. Returns 0, or the errno of a disk that has none or of a limit.
int reserve(int fd, int64_t size);

// The bytes go to a temporary file beside `path`, which takes its name in finish(), once they are
// on disk. Until then `path` is untouched; without finish() the destructor removes the temporary.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path) : path_(std::move(path)) {}
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Makes the temporary, `size` bytes long, of zeros. Throws Error{kResource} naming the path and
  // the system's reason when it cannot be created or the disk has no room.
  void create(int64_t size);
  // Between create() and finish(), unless one of them failed.
  bool is_open() const { return fd_ >= 0; }
  // Throws Error{kResource}; the temporary is gone then.
  void put(std::span<const std::byte> bytes, int64_t position);
  void finish();

  const std::filesystem::path& path() const { return path_; }

 private:
  [[noreturn]] void fail_and_remove(std::string_view action, int code);
  void remove_temporary();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

// A whole file at once. Throws as OutputFile.
void write_file(const std::filesystem::path& path, std::string_view text);

// Of a folder that is there: whether nothing is in it but temporaries that killed processes left.
bool holds_only_temporaries(const std::filesystem::path& folder);
// Removes them, at any depth. For a folder that no other process writes to (FolderLock).
void remove_temporaries(const std::filesystem::path& folder);

}  // namespace lapidary
