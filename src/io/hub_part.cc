#include "io/hub_part.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/fail.h"
#include "io/output_file.h"

namespace lapidary {

namespace {

constexpr int64_t kMagic = 0x3130'7472'6170'706c;  // "lppart01"
constexpr int64_t kMaxSegments = 1 << 16;

using Header = std::array<int64_t, 3>;  // magic, size, bytes of a segment

}  // namespace

PartFile::PartFile(std::filesystem::path path, int64_t size, int64_t segment_bytes)
    : path_(std::move(path)),
      size_(size),
      segment_bytes_(std::max(segment_bytes, size / kMaxSegments + 1)) {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) fail_resource("{}: cannot create: {}", path_.string(), std::strerror(errno));
  try {
    if (!read_trailer()) make();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

PartFile::~PartFile() {
  if (fd_ < 0) return;
  if (size_ > 0 && present_bytes() == 0) ::unlink(path_.c_str());  // nothing to go on from
  ::close(fd_);
}

void PartFile::cut(int64_t segment_bytes) {
  segment_bytes_ = segment_bytes;
  segments_.clear();
  for (int64_t begin = 0; begin < size_; begin += segment_bytes)
    segments_.push_back({begin, std::min(segment_bytes, size_ - begin), 0, false});
}

// False if this is not a part of such a file.
bool PartFile::read_trailer() {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) fail_write(errno);
  if (size_ > 0 && status.st_size == size_) {  // killed in finish(), between cutting and renaming
    cut(segment_bytes_);
    for (Segment& segment : segments_) segment.filled = segment.size;
    return true;
  }
  Header header{};
  if (::pread(fd_, header.data(), sizeof header, size_) != ssize_t{sizeof header} ||
      header[0] != kMagic || header[1] != size_ || header[2] < size_ / kMaxSegments + 1)
    return false;
  cut(header[2]);
  std::vector<int64_t> filled(segments_.size());
  const auto bytes = static_cast<ssize_t>(filled.size() * sizeof(int64_t));
  if (::pread(fd_, filled.data(), static_cast<size_t>(bytes), size_ + int64_t{sizeof header}) !=
      bytes)
    return false;
  for (size_t i = 0; i < filled.size(); ++i) {
    if (filled[i] < 0 || filled[i] > segments_[i].size) return false;
    segments_[i].filled = filled[i];
  }
  return true;
}

void PartFile::make() {
  cut(segment_bytes_);
  const auto trailer = static_cast<int64_t>(sizeof(Header) + segments_.size() * sizeof(int64_t));
  if (::ftruncate(fd_, 0) != 0) fail_write(errno);
  // Takes the room at once: a full disk is known before the work of filling it.
  if (const int code = reserve(fd_, size_ + trailer); code != 0) {
    ::unlink(path_.c_str());
    fail_write(code);
  }
  const Header header = {kMagic, size_, segment_bytes_};
  write(header.data(), sizeof header, size_);
}

int64_t PartFile::present_bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const Segment& segment : segments_) bytes += segment.filled;
  return bytes;
}

std::optional<PartFile::Range> PartFile::claim() {
  const std::lock_guard lock(mutex_);
  for (Segment& segment : segments_) {
    if (segment.claimed || segment.filled == segment.size) continue;
    segment.claimed = true;
    return Range{segment.begin + segment.filled, segment.begin + segment.size};
  }
  return {};
}

void PartFile::release_claims() {
  const std::lock_guard lock(mutex_);
  for (Segment& segment : segments_) segment.claimed = false;
}

int64_t PartFile::put(int64_t begin, std::span<const std::byte> bytes) {
  const int64_t end = begin + std::ssize(bytes);
  LAPIDARY_CHECK(begin >= 0 && end <= size_, "bytes outside the file");
  int64_t put = 0;
  for (int64_t at = begin; at < end;) {
    const int64_t index = at / segment_bytes_;
    std::unique_lock lock(mutex_);
    Segment segment = segments_[static_cast<size_t>(index)];
    lock.unlock();
    const int64_t next = segment.begin + segment.filled;
    const int64_t stop = std::min(end, segment.begin + segment.size);
    LAPIDARY_CHECK(at <= next, "bytes that leave a hole in their segment");
    if (next < stop) {
      write(bytes.data() + (next - begin), static_cast<size_t>(stop - next), next);
      segment.filled += stop - next;
      write(&segment.filled, sizeof segment.filled,
            size_ + static_cast<int64_t>(sizeof(Header)) + index * int64_t{sizeof(int64_t)});
      lock.lock();
      segments_[static_cast<size_t>(index)].filled = segment.filled;
      put += stop - next;
    }
    at = stop;
  }
  return put;
}

void PartFile::start_over() {
  const std::lock_guard lock(mutex_);
  make();
}

void PartFile::finish() {
  LAPIDARY_CHECK(complete(), "a part is finished that has bytes missing");
  if (::ftruncate(fd_, size_) != 0 || ::fsync(fd_) != 0) fail_write(errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail_write(errno);
}

void PartFile::write(const void* bytes, size_t size, int64_t position) {
  const char* from = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t n = ::pwrite(fd_, from, size, position);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_write(n < 0 ? errno : EIO);
    from += n;
    size -= static_cast<size_t>(n);
    position += n;
  }
}

void PartFile::fail_write(int code) const {
  throw Error(ErrorKind::kResource,
              fmt::format("{}: cannot write: {}", path_.string(), std::strerror(code)),
              code == ENOSPC || code == EDQUOT
                  ? "make room; what has arrived is kept, and the next pull goes on from there"
                  : "");
}

}  // namespace lapidary
