#include "train/data_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/fail.h"
#include "base/rng.h"

namespace lapidary {

DataFile::DataFile(std::filesystem::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail("{}: {}", path_.string(), std::strerror(errno));
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd_);
    fail("{}: not a regular file", path_.string());
  }
  size_ = info.st_size;
}

DataFile::DataFile(DataFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

DataFile::~DataFile() {
  if (fd_ >= 0) ::close(fd_);
}

std::string DataFile::read(int64_t offset, int64_t size) const {
  std::string bytes(static_cast<size_t>(size), '\0');
  for (int64_t done = 0; done < size;) {
    const ssize_t got =
        ::pread(fd_, bytes.data() + done, static_cast<size_t>(size - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_resource("{}: cannot read: {}", path_.string(), std::strerror(errno));
    if (got == 0)
      fail("{}: ends at byte {}, expected {}: it was changed since it was first read",
           path_.string(), offset + done, size_);
    done += got;
  }
  return bytes;
}

uint64_t hash_of(std::string_view bytes) {
  uint64_t hash = mix64(bytes.size());
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    hash = mix64(hash ^ word);
  }
  return hash;
}

}  // namespace lapidary
