// Keeps two processes from writing to the same folder: each would take the other's files for what a
// killed run left behind.
#pragma once

#include <filesystem>

namespace lapidary {

// Held from construction to destruction, and given up by the system when a process dies. Nothing of
// it is seen in the folder. Where the file system has no locks it holds nothing.
class FolderLock {
 public:
  FolderLock() = default;
  // Throws Error{kInput} when somebody else holds it.
  explicit FolderLock(const std::filesystem::path& folder);
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  ~FolderLock();

 private:
  int fd_ = -1;
};

}  // namespace lapidary
