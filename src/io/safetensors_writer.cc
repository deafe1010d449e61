#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <numeric>
#include <unistd.h>
#include <unordered_set>
#include <utility>

#include "base/fail.h"
#include "base/json.h"
#include "io/printable.h"
#include "io/safetensors.h"

namespace lapidary {

namespace {

// The reference implementation lays tensors out by this rank, highest first, then by name. It never
// puts a type before a wider one, which is what keeps every tensor aligned.
int layout_rank(DType type) {
  switch (type) {
    case DType::kU8:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kBF16:
      return 2;
    case DType::kI32:
      return 3;
    case DType::kU32:
      return 4;
    case DType::kF32:
      return 5;
    case DType::kI64:
      return 6;
  }
  return 0;
}

void check_declarations(const std::vector<TensorDeclaration>& declarations,
                        const std::filesystem::path& path) {
  std::unordered_set<std::string> names;
  int64_t total = 0;
  for (const TensorDeclaration& d : declarations) {
    const auto complain = [&](std::string_view problem) {
      fail("{}: tensor '{}': {}", path.string(), printable(d.name), problem);
    };
    if (d.name == "__metadata__") complain("the format keeps this name for itself");
    if (!names.insert(d.name).second) complain("declared twice");
    int64_t bytes = size_of(d.dtype);
    for (const int64_t size : d.shape)
      if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes))
        complain(fmt::format("shape {} cannot be", shape_string(d.shape)));
    if (__builtin_add_overflow(total, bytes, &total)) complain("more than 2^63 bytes in all");
  }
}

std::vector<size_t> layout_order(const std::vector<TensorDeclaration>& declarations) {
  std::vector<size_t> order(declarations.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const TensorDeclaration& x = declarations[a];
    const TensorDeclaration& y = declarations[b];
    return std::pair(-layout_rank(x.dtype), std::string_view(x.name)) <
           std::pair(-layout_rank(y.dtype), std::string_view(y.name));
  });
  return order;
}

std::string quoted(const std::string& text) {
  return Json(text).dump();
}

// The 8-byte length and the padded JSON. Spelled out, because Json would sort the keys.
std::string header_bytes(const std::vector<TensorDeclaration>& declarations,
                         const std::vector<size_t>& order, const Metadata& metadata,
                         const std::filesystem::path& path) {
  std::string json = "{";
  const auto separate = [&] {
    if (json.size() > 1) json += ',';
  };
  try {
    if (!metadata.empty()) json += "\"__metadata__\":" + Json(metadata).dump();
    int64_t offset = 0;
    for (const size_t i : order) {
      const TensorDeclaration& d = declarations[i];
      const int64_t end = offset + d.byte_size();
      separate();
      json += fmt::format(R"({}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                          quoted(d.name), name_of(d.dtype), Json(d.shape).dump(), offset, end);
      offset = end;
    }
  } catch (const Json::type_error&) {
    fail("{}: a tensor's name or metadata is not UTF-8", path.string());
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string header;
  for (int i = 0; i < 8; ++i) header += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  return header + json;
}

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<int> count{0};  // several writers of one process may have the same target
  return fmt::format("{}.tmp-{}-{}", path.string(), ::getpid(), count++);
}

}  // namespace

int64_t TensorDeclaration::byte_size() const {
  int64_t bytes = size_of(dtype);
  for (const int64_t size : shape) bytes *= size;
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path,
                                     std::vector<TensorDeclaration> declarations,
                                     const Metadata& metadata)
    : path_(std::move(path)) {
  check_declarations(declarations, path_);
  const std::vector<size_t> order = layout_order(declarations);
  const std::string header = header_bytes(declarations, order, metadata, path_);

  const auto header_size = static_cast<int64_t>(header.size());
  regions_.resize(declarations.size());
  for (const size_t i : order) {
    regions_[i] = {header_size + total_bytes_, declarations[i].byte_size()};
    total_bytes_ += regions_[i].size;
  }
  skip_complete_regions();
  create_file(header_size + total_bytes_);
  put(std::as_bytes(std::span(header)), 0);
}

SafetensorsWriter::~SafetensorsWriter() {
  remove_temporary();
}

void SafetensorsWriter::skip_complete_regions() {
  while (region_ < regions_.size() && region_written_ == regions_[region_].size) {
    ++region_;
    region_written_ = 0;
  }
}

void SafetensorsWriter::create_file(int64_t file_size) {
  temporary_ = temporary_name(path_);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    const int code = errno;
    temporary_.clear();
    fail_and_remove("cannot create", code);
  }
  // Takes the room at once: a full disk is known before the work of making the data is done. Where
  // the file system cannot do that, write() will say so.
  int code = 0;
  do {
    code = ::fallocate(fd_, 0, 0, file_size) == 0 ? 0 : errno;
  } while (code == EINTR);
  if (code == ENOSPC || code == EDQUOT || code == EFBIG)
    fail_and_remove(fmt::format("cannot write {} bytes", file_size), code);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  LAPIDARY_CHECK(fd_ >= 0, "write() after finish() or a failure");
  LAPIDARY_CHECK(static_cast<int64_t>(bytes.size()) <= total_bytes_ - written_bytes_,
                 fmt::format("{} bytes written, {} of {} were left", bytes.size(),
                             total_bytes_ - written_bytes_, total_bytes_));
  while (!bytes.empty()) {
    const Region& region = regions_[region_];
    const auto room = static_cast<size_t>(region.size - region_written_);
    const auto piece = bytes.first(std::min(bytes.size(), room));
    put(piece, region.begin + region_written_);
    region_written_ += static_cast<int64_t>(piece.size());
    written_bytes_ += static_cast<int64_t>(piece.size());
    bytes = bytes.subspan(piece.size());
    skip_complete_regions();
  }
}

void SafetensorsWriter::put(std::span<const std::byte> bytes, int64_t position) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), position);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_and_remove("cannot write", n < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(n));
    position += n;
  }
}

void SafetensorsWriter::finish() {
  LAPIDARY_CHECK(fd_ >= 0, "finish() after finish() or a failure");
  LAPIDARY_CHECK(written_bytes_ == total_bytes_,
                 fmt::format("{} of {} declared bytes written", written_bytes_, total_bytes_));
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

void SafetensorsWriter::fail_and_remove(std::string_view action, int code) {
  remove_temporary();
  fail_resource("{}: {}: {}", path_.string(), action, std::strerror(code));
}

void SafetensorsWriter::remove_temporary() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

}  // namespace lapidary
