#include "io/staging.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// Tells a folder that was made here from any other of that name, and carries the lock.
constexpr const char* kMark = ".lapidary-partial";

fs::path without_final_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // the rename stands; only its being on disk cannot be waited for
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

Staging::Staging(const fs::path& target) : target_(without_final_slash(target)) {
  path_ = target_.string() + ".partial";
  const bool made = ::mkdir(path_.c_str(), 0777) == 0;
  if (!made && errno != EEXIST)
    fail_resource("{}: cannot create: {}", target_.string(), std::strerror(errno));
  const fs::path mark = path_ / kMark;
  lock_ = ::open(mark.c_str(), O_RDWR | O_CLOEXEC | (made ? O_CREAT : 0), 0666);
  if (lock_ < 0 && !made && errno == ENOENT)
    throw Error(ErrorKind::kInput,
                fmt::format("{}: is there already, and no conversion made it", path_.string()),
                "move it away: the work is done under this name");
  if (lock_ < 0) fail_resource("{}: cannot create: {}", target_.string(), std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail("{}: another process is making it", target_.string());
  }
  if (!made) clear();
}

Staging::~Staging() {
  if (lock_ < 0) return;
  if (!kept_) {
    std::error_code ignored;
    clear();
    fs::remove(path_ / kMark, ignored);
    fs::remove(path_, ignored);
  }
  ::close(lock_);
}

// All but the mark, which goes last: what a second kill leaves is still known as ours.
void Staging::clear() {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored))
    if (entry.path().filename() != kMark) fs::remove_all(entry.path(), ignored);
}

void Staging::commit_folder() {
  fs::remove(path_ / kMark);
  sync_folder(path_);
  const bool replace = fs::exists(target_);
  if (replace &&
      ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(path_);
  } else {
    // Without an exchange there is a moment in which the name is free.
    if (replace) fs::remove_all(target_);
    if (::rename(path_.c_str(), target_.c_str()) != 0)
      fail_resource("{}: cannot create: {}", target_.string(), std::strerror(errno));
  }
  sync_folder(target_.parent_path());
  ::close(lock_);
  lock_ = -1;
}

void Staging::commit_file(const fs::path& name) {
  if (::rename((path_ / name).c_str(), target_.c_str()) != 0)
    fail_resource("{}: cannot create: {}", target_.string(), std::strerror(errno));
  sync_folder(target_.parent_path());
}

}  // namespace lapidary
