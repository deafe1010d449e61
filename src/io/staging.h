// A folder or file that is there whole or not at all, made by work that a kill may end anywhere.
#pragma once

#include <filesystem>

#include "io/folder_lock.h"

namespace lapidary {

// What is made is `target`.partial/`name of target` until it takes the target's place. Of the
// folder around it: it carries a mark from before anything is in it until nothing is, so that what
// a killed process left is known as ours whenever the kill came, and is removed by the next; it is
// locked while the object lives, so that two processes cannot make the same target at once; the
// destructor removes it unless keep() was called.
class Staging {
 public:
  enum class Kind { kFolder, kFile };

  // A folder is made at once, empty. Throws Error{kInput} when another process is at it, or what
  // has the name `target`.partial was not made here; Error{kResource} naming `target` when it
  // cannot be created.
  explicit Staging(const std::filesystem::path& target, Kind kind = Kind::kFolder);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Where to make it.
  const std::filesystem::path& path() const { return path_; }

  // Puts it in the target's place. A file or folder that is there is replaced, a file in one step,
  // a folder where the file system can do that. Throws Error{kResource}.
  void commit();

  // Leaves it for a person to look at; the next one with the same target removes it.
  void keep() { kept_ = true; }

 private:
  void clear();

  std::filesystem::path target_;
  std::filesystem::path around_;
  std::filesystem::path path_;
  FolderLock lock_;
  bool kept_ = false;
};

}  // namespace lapidary
