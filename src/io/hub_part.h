// A file that is being downloaded, in a state from which any later process can go on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace lapidary {

// The file is cut into segments, each filled from its front by one connection at a time. Behind the
// `size` bytes of content lies a trailer that says how far each segment has come:
//
//   8 bytes of magic | int64 size | int64 bytes of a segment | int64 filled, for each segment
//
// Bytes are written before they are counted, so that a killed process has lost at most the piece
// that each of its connections had in hand. Methods may be called from several threads.
class PartFile {
 public:
  struct Range {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
  };

  // Goes on with the file at `path` if it is a part of one of `size` bytes, else makes it new. The
  // caller holds the lock of the blob. Throws Error{kResource} as all of these do; a file that was
  // made for want of room is gone then.
  PartFile(std::filesystem::path path, int64_t size, int64_t segment_bytes);
  ~PartFile();  // removes the file if nothing has come
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  int64_t size() const { return size_; }
  int64_t present_bytes() const;
  bool complete() const { return present_bytes() == size_; }
  // The missing bytes of a segment that nobody was given yet.
  std::optional<Range> claim();
  // Forgets who was given what.
  void release_claims();
  // The bytes from `begin` on, which replace nothing: what is there already is skipped, and what
  // does not continue a segment is a programming error. Returns how many were new.
  int64_t put(int64_t begin, std::span<const std::byte> bytes);
  // Drops all that is there.
  void start_over();
  // Cuts the trailer off, and waits until the content is on disk. The object is done then.
  void finish();

  const std::filesystem::path& path() const { return path_; }

 private:
  struct Segment {
    int64_t begin = 0, size = 0, filled = 0;
    bool claimed = false;
  };

  bool read_trailer();
  void make();
  void cut(int64_t segment_bytes);
  void write(const void* bytes, size_t size, int64_t position);
  [[noreturn]] void fail_write(int code) const;

  std::filesystem::path path_;
  int64_t size_;
  int64_t segment_bytes_;
  int fd_ = -1;
  mutable std::mutex mutex_;  // of segments_
  std::vector<Segment> segments_;
};

}  // namespace lapidary
