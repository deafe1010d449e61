#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/fail.h"
#include "base/json.h"
#include "io/printable.h"

namespace lapidary {

namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's own limit

// Where a tensor's bytes lie, counted from the end of the header.
struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct ParsedTensor {
  NamedTensor tensor;
  Range range;
};

// The header's JSON text; checks the length in front of it.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& where) {
  if (bytes.size() < kLengthBytes)
    fail("{}: truncated: {} bytes, a safetensors file has at least {}", where, bytes.size(),
         kLengthBytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs"))
    throw Error(ErrorKind::kInput, fmt::format("{}: a Git LFS pointer, not the weights", where),
                "run `git lfs pull` in the folder, or download the file again");
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i)
    length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (length > kMaxHeaderBytes)
    fail("{}: header of {} bytes, expected at most {}: not a safetensors file", where, length,
         kMaxHeaderBytes);
  if (length > bytes.size() - kLengthBytes)
    fail("{}: truncated: header of {} bytes, the file has {} after its length", where, length,
         bytes.size() - kLengthBytes);
  return text.substr(kLengthBytes, length);
}

// nlohmann keeps the last of two equal keys without a word; this throws.
Json parse_header(std::string_view text, const std::string& where) {
  if (!text.starts_with('{')) fail("{}: header does not start with '{{'", where);
  if (const size_t zero = text.find('\0'); zero != text.npos)  // where the parser would just stop
    fail("{}: header is not valid JSON (stopped at byte {} of {})", where, zero + 1, text.size());
  constexpr int kMaxDepth = 8;  // the format nests 3 deep
  std::unordered_set<std::string> names;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) fail("{}: header nested deeper than {} levels", where, kMaxDepth);
    if (event == Json::parse_event_t::key && depth == 1 &&
        !names.insert(value.get<std::string>()).second)
      fail("{}: tensor '{}': listed twice", where, printable(value.get<std::string>()));
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::parse_error& e) {
    fail("{}: header is not valid JSON (stopped at byte {} of {})", where, e.byte, text.size());
  } catch (const Json::out_of_range&) {
    fail("{}: header with a number that no double can hold", where);
  }
}

Metadata parse_metadata(const Json& value, const std::string& where) {
  if (value.is_null()) return {};  // as MLX writes none
  if (!value.is_object())
    fail("{}: __metadata__: expected an object, found {}", where, shown_json(value));
  Metadata metadata;
  for (const auto& [key, entry] : value.items()) {
    if (!entry.is_string())
      fail("{}: __metadata__: '{}': expected a string, found {}", where, printable(key),
           shown_json(entry));
    metadata[key] = entry.get<std::string>();
  }
  return metadata;
}

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType type :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kU8, DType::kI32, DType::kU32, DType::kI64})
    if (name_of(type) == name) return type;
  return std::nullopt;
}

// nullopt unless `value` is a list of integers in [0, 2^63).
std::optional<std::vector<int64_t>> sizes_of(const Json& value) {
  if (!value.is_array()) return std::nullopt;
  std::vector<int64_t> sizes;
  for (const Json& size : value) {
    if (!size.is_number_unsigned()) return std::nullopt;
    const auto number = size.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    sizes.push_back(static_cast<int64_t>(number));
  }
  return sizes;
}

// product(shape) * size_of(dtype), nullopt when it does not fit.
std::optional<int64_t> checked_byte_size(std::span<const int64_t> shape, DType dtype) {
  int64_t bytes = size_of(dtype);
  for (const int64_t size : shape)  // overflow counts even when a later size is 0
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  return bytes;
}

ParsedTensor parse_tensor(const std::string& name, const Json& entry, const std::string& where) {
  const std::string what = fmt::format("{}: tensor '{}'", where, printable(name));
  if (!entry.is_object()) fail("{}: expected an object, found {}", what, shown_json(entry));
  for (const char* key : {"dtype", "shape", "data_offsets"})
    if (!entry.contains(key)) fail("{}: {}: missing", what, key);

  const Json& type_name = entry["dtype"];
  if (!type_name.is_string())
    fail("{}: dtype: expected a string, found {}", what, shown_json(type_name));
  const auto dtype = dtype_of(type_name.get_ref<const std::string&>());
  if (!dtype)
    fail("{}: dtype {} is not supported (expected F32, F16, BF16, U8, I32, U32 or I64)", what,
         printable(type_name.get_ref<const std::string&>()));

  auto shape = sizes_of(entry["shape"]);
  if (!shape)
    fail("{}: shape: expected a list of sizes >= 0, found {}", what, shown_json(entry["shape"]));
  const auto size = checked_byte_size(*shape, *dtype);
  if (!size) fail("{}: shape {}: more bytes than 2^63", what, shown_json(entry["shape"]));

  const auto offsets = sizes_of(entry["data_offsets"]);
  if (!offsets || offsets->size() != 2)
    fail("{}: data_offsets: expected [begin, end], found {}", what,
         shown_json(entry["data_offsets"]));
  const int64_t begin = (*offsets)[0];
  const int64_t end = (*offsets)[1];
  if (end < begin) fail("{}: data_offsets [{}, {}]: end before begin", what, begin, end);
  if (end - begin != *size)
    fail("{}: shape {} of {} has {} bytes, data_offsets [{}, {}] hold {}", what,
         printable(shape_string(*shape)), name_of(*dtype), *size, begin, end, end - begin);
  return {{name, {*dtype, std::move(*shape), {}}},
          {static_cast<uint64_t>(begin), static_cast<uint64_t>(end)}};
}

// The ranges must cover the `available` bytes after the header once and without a gap.
void check_ranges(const std::vector<ParsedTensor>& tensors, uint64_t available,
                  const std::string& where) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(tensors[a].range.begin, tensors[a].range.end) <
           std::pair(tensors[b].range.begin, tensors[b].range.end);
  });
  uint64_t end = 0;
  const ParsedTensor* previous = nullptr;
  const auto what = [&](const ParsedTensor& t) {
    return fmt::format("{}: tensor '{}': data_offsets [{}, {}]", where, printable(t.tensor.name),
                       t.range.begin, t.range.end);
  };
  for (const size_t i : order) {
    const ParsedTensor& next = tensors[i];
    if (next.range.begin < end)
      fail("{} overlap those of '{}' [{}, {}]", what(next), printable(previous->tensor.name),
           previous->range.begin, previous->range.end);
    if (next.range.begin > end)
      fail("{} leave a hole: the data before them ends at {}", what(next), end);
    end = next.range.end;
    previous = &next;
  }
  if (end > available)
    fail("{}: truncated: {} of {} bytes of data are missing", where, end - available, end);
  if (end < available)
    fail("{}: {} bytes after the last tensor, expected the end of the file", where,
         available - end);
}

}  // namespace

const TensorView* SafetensorsContents::find(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const NamedTensor& t, std::string_view n) { return t.name < n; });
  return it != tensors.end() && it->name == name ? &it->view : nullptr;
}

bool is_aligned(const TensorView& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.bytes.data());
  return address % static_cast<uintptr_t>(size_of(tensor.dtype)) == 0;
}

SafetensorsContents parse_safetensors(std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view text = header_text(bytes, where);
  const Json header = parse_header(text, where);
  const auto data = bytes.subspan(kLengthBytes + text.size());

  SafetensorsContents contents;
  std::vector<ParsedTensor> parsed;
  for (const auto& [name, entry] : header.items()) {  // in name order: Json sorts its keys
    if (name == "__metadata__")
      contents.metadata = parse_metadata(entry, where);
    else
      parsed.push_back(parse_tensor(name, entry, where));
  }
  check_ranges(parsed, data.size(), where);
  for (ParsedTensor& p : parsed) {
    p.tensor.view.bytes = data.subspan(p.range.begin, p.range.end - p.range.begin);
    contents.tensors.push_back(std::move(p.tensor));
  }
  return contents;
}

SafetensorsFile::SafetensorsFile(MappedFile file, SafetensorsContents contents)
    : file_(std::move(file)), contents_(std::move(contents)) {}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  MappedFile file = MappedFile::open(path);
  SafetensorsContents contents = parse_safetensors(file.bytes(), path.string());
  return SafetensorsFile(std::move(file), std::move(contents));
}

}  // namespace lapidary
