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

  std::vector<RegionWriter::Region> regions(declarations.size());
  int64_t file_bytes = std::ssize(header);
  for (const size_t i : order) {
    regions[i] = {file_bytes, declarations[i].byte_size()};
    file_bytes += regions[i].size;
  }
  file_.create(header, std::move(regions), file_bytes);
}

}  // namespace lapidary
