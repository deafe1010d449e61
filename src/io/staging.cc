#include "io/staging.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// Tells a folder that was made here from any other of that name.
constexpr const char* kMark = ".lapidary-partial";

fs::path without_final_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

// Marked, or not yet marked, or no longer.
bool made_here(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kMark, ignored) ||
         (fs::is_directory(folder, ignored) && fs::is_empty(folder, ignored));
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // the rename stands; only its being on disk cannot be waited for
  ::fsync(fd);
  ::close(fd);
}

// `done`: what a system call said.
void require(bool done, const fs::path& target) {
  if (!done) fail_resource("{}: cannot create: {}", target.string(), std::strerror(errno));
}

}  // namespace

Staging::Staging(const fs::path& target, Kind kind) : target_(without_final_slash(target)) {
  around_ = target_.string() + ".partial";
  path_ = around_ / target_.filename();
  const bool made = ::mkdir(around_.c_str(), 0777) == 0;
  require(made || errno == EEXIST, target_);
  if (!made && !made_here(around_))
    throw Error(ErrorKind::kInput,
                fmt::format("{}: is there already, and was not made by lapidary", around_.string()),
                "move it away: the work is done under this name");
  lock_ = FolderLock(around_);
  require(std::ofstream(around_ / kMark).is_open(), target_);
  clear();
  require(kind == Kind::kFile || ::mkdir(path_.c_str(), 0777) == 0, target_);
}

Staging::~Staging() {
  if (kept_) return;
  std::error_code ignored;
  clear();
  fs::remove(around_ / kMark, ignored);
  fs::remove(around_, ignored);
}

// All but the mark, which goes last: what a second kill leaves is still known as ours.
void Staging::clear() {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(around_, ignored))
    if (entry.path().filename() != kMark) fs::remove_all(entry.path(), ignored);
}

void Staging::commit() {
  if (!fs::is_directory(path_)) {
    require(::rename(path_.c_str(), target_.c_str()) == 0, target_);
  } else {
    sync_folder(path_);
    const bool exchanged =
        ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0;
    if (!exchanged) {
      // Nothing is there yet, or the file system cannot exchange: then there is a moment in which
      // the name is free. For any other reason, as of a mount point, what is there stays.
      require(errno == ENOENT || errno == EINVAL || errno == ENOSYS || errno == EXDEV, target_);
      fs::remove_all(target_);
      require(::rename(path_.c_str(), target_.c_str()) == 0, target_);
    }
  }
  sync_folder(target_.parent_path());
}

}  // namespace lapidary
