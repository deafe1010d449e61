// A folder or file that is there whole or not at all, made by work that a kill may end anywhere.
#pragma once

#include <filesystem>

namespace lapidary {

// A folder `target`.partial to put files in. It is locked while the object lives: two processes
// cannot make the same target at once, and what a killed one left is removed by the next. The
// destructor removes it unless keep() was called.
class Staging {
 public:
  // Throws Error{kInput} when another process is at it, or a folder of that name was not made here;
  // Error{kResource} naming `target` when it cannot be created.
  explicit Staging(const std::filesystem::path& target);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Takes the target's name: the folder itself, or the file `name` in it. What has that name
  // already is replaced in one step where the file system can do that. Throws Error{kResource}.
  void commit_folder();
  void commit_file(const std::filesystem::path& name);

  // Leaves the folder for a person to look at; the next one with the same target removes it.
  void keep() { kept_ = true; }

 private:
  void clear();

  std::filesystem::path target_;
  std::filesystem::path path_;
  int lock_ = -1;
  bool kept_ = false;
};

}  // namespace lapidary
