#include <algorithm>
#include <numeric>
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

}  // namespace

int64_t TensorDeclaration::byte_size() const {
  int64_t bytes = size_of(dtype);
  for (const int64_t size : shape) bytes *= size;
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path,
                                     std::vector<TensorDeclaration> declarations,
                                     const Metadata& metadata)
    : file_(std::move(path)) {
  check_declarations(declarations, file_.path());
  const std::vector<size_t> order = layout_order(declarations);
  const std::string header = header_bytes(declarations, order, metadata, file_.path());

  const auto header_size = static_cast<int64_t>(header.size());
  regions_.resize(declarations.size());
  for (const size_t i : order) {
    regions_[i] = {header_size + total_bytes_, declarations[i].byte_size()};
    total_bytes_ += regions_[i].size;
  }
  skip_complete_regions();
  file_.create(header_size + total_bytes_);
  file_.put(std::as_bytes(std::span(header)), 0);
}

void SafetensorsWriter::skip_complete_regions() {
  while (region_ < regions_.size() && region_written_ == regions_[region_].size) {
    ++region_;
    region_written_ = 0;
  }
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  LAPIDARY_CHECK(file_.is_open(), "write() after finish() or a failure");
  LAPIDARY_CHECK(static_cast<int64_t>(bytes.size()) <= total_bytes_ - written_bytes_,
                 fmt::format("{} bytes written, {} of {} were left", bytes.size(),
                             total_bytes_ - written_bytes_, total_bytes_));
  while (!bytes.empty()) {
    const Region& region = regions_[region_];
    const auto room = static_cast<size_t>(region.size - region_written_);
    const auto piece = bytes.first(std::min(bytes.size(), room));
    file_.put(piece, region.begin + region_written_);
    region_written_ += static_cast<int64_t>(piece.size());
    written_bytes_ += static_cast<int64_t>(piece.size());
    bytes = bytes.subspan(piece.size());
    skip_complete_regions();
  }
}

void SafetensorsWriter::finish() {
  LAPIDARY_CHECK(file_.is_open(), "finish() after finish() or a failure");
  LAPIDARY_CHECK(written_bytes_ == total_bytes_,
                 fmt::format("{} of {} declared bytes written", written_bytes_, total_bytes_));
  file_.finish();
}

}  // namespace lapidary
