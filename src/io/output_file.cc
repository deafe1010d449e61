#include "io/output_file.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <regex>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/fail.h"

namespace lapidary {

namespace {

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<int> count{0};  // several writers of one process may have the same target
  return fmt::format("{}.tmp-{}-{}", path.string(), ::getpid(), count++);
}
bool is_temporary(const std::filesystem::path& path) {
  static const std::regex kName(R"(.*\.tmp-\d+-\d+)");
  return std::regex_match(path.filename().string(), kName);
}

}  // namespace

int reserve(int fd, int64_t size) {
  int code = 0;
  do {
    code = size == 0 || ::fallocate(fd, 0, 0, size) == 0 ? 0 : errno;
  } while (code == EINTR);
  if (code == 0 || code == ENOSPC || code == EDQUOT || code == EFBIG) return code;
  return ::ftruncate(fd, size) == 0 ? 0 : errno;
}

OutputFile::~OutputFile() {
  remove_temporary();
}

void OutputFile::create(int64_t size) {
  // A rename would put a file in the place of a device, or of the end of a pipe.
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::status(path_, error);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there) &&
      !std::filesystem::is_directory(there))
    fail_resource("{}: is not a regular file", path_.string());
  temporary_ = temporary_name(path_);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    const int code = errno;
    temporary_.clear();
    fail_and_remove("cannot create", code);
  }
  // Takes the room at once: a full disk is known before the work of making the data is done. Where
  // the file system cannot do that, write() will say so.
  if (const int code = reserve(fd_, size); code != 0)
    fail_and_remove(fmt::format("cannot write {} bytes", size), code);
}

void OutputFile::put(std::span<const std::byte> bytes, int64_t position) {
  LAPIDARY_CHECK(is_open(), "put() outside create() and finish()");
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), position);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_and_remove("cannot write", n < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(n));
    position += n;
  }
}

void OutputFile::finish() {
  LAPIDARY_CHECK(is_open(), "finish() after finish() or a failure");
  if (::fsync(fd_) != 0) fail_and_remove("cannot write", errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail_and_remove("cannot write", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_and_remove("cannot create", errno);
  temporary_.clear();
  // The new name itself reaches the disk with the folder. The file is whole either way, so that a
  // file system that cannot do this is no failure.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

void OutputFile::fail_and_remove(std::string_view action, int code) {
  remove_temporary();
  fail_resource("{}: {}: {}", path_.string(), action, std::strerror(code));
}

void OutputFile::remove_temporary() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  OutputFile file(path);
  file.create(static_cast<int64_t>(text.size()));
  file.put(std::as_bytes(std::span(text)), 0);
  file.finish();
}

bool holds_only_temporaries(const std::filesystem::path& folder) {
  std::error_code ignored;  // of a folder that cannot be read: writing to it says why
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    if (!is_temporary(entry.path())) return false;
  return true;
}

void remove_temporaries(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, ignored))
    if (is_temporary(entry.path())) found.push_back(entry.path());
  for (const auto& path : found) std::filesystem::remove(path, ignored);
}

}  // namespace lapidary
