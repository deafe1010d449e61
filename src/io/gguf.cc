#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <unordered_set>

#include "base/fail.h"
#include "io/gguf_split.h"
#include "io/printable.h"
#include "tensor/tensor.h"

namespace lapidary {

namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they are");

constexpr std::string_view kMagic = "GGUF";
constexpr size_t kMostDimensions = 4;
constexpr const char* kAlignmentKey = "general.alignment";

constexpr GgmlTypeInfo kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4},       {GgmlType::kF16, "F16", 1, 2},
    {GgmlType::kQ4_0, "Q4_0", 32, 18},   {GgmlType::kQ4_1, "Q4_1", 32, 20},
    {GgmlType::kQ5_0, "Q5_0", 32, 22},   {GgmlType::kQ5_1, "Q5_1", 32, 24},
    {GgmlType::kQ8_0, "Q8_0", 32, 34},   {GgmlType::kQ2_K, "Q2_K", 256, 84},
    {GgmlType::kQ3_K, "Q3_K", 256, 110}, {GgmlType::kQ4_K, "Q4_K", 256, 144},
    {GgmlType::kQ5_K, "Q5_K", 256, 176}, {GgmlType::kQ6_K, "Q6_K", 256, 210},
    {GgmlType::kI8, "I8", 1, 1},         {GgmlType::kI16, "I16", 1, 2},
    {GgmlType::kI32, "I32", 1, 4},       {GgmlType::kI64, "I64", 1, 8},
    {GgmlType::kF64, "F64", 1, 8},       {GgmlType::kBF16, "BF16", 1, 2},
};

// Types without a place in the list above, by number, to be refused by name.
constexpr std::pair<uint32_t, std::string_view> kOtherTypes[] = {
    {9, "Q8_1"},   {15, "Q8_K"},   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
    {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},   {22, "IQ2_S"},  {23, "IQ4_XS"},
    {29, "IQ1_M"}, {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"}};

std::string type_name(uint32_t number) {
  for (const auto& [other, name] : kOtherTypes)
    if (other == number) return std::string(name);
  return std::to_string(number);
}

// Takes one thing after another off the front of the file.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& where)
      : bytes_(bytes), where_(where) {}

  template <class T>
  T number(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::string string(const std::string& what) {
    const auto length = number<uint64_t>(what);
    const auto text = take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  // A count of things that take `smallest` bytes each at least: what follows must have the room, so
  // that no file can ask for more memory than a multiple of its own size.
  size_t count(size_t smallest, const std::string& what) {
    const auto count = number<uint64_t>(what);
    if (count > left() / smallest)
      fail("{}: {}: {} of them cannot be in the {} bytes that follow", where_, what, count, left());
    return static_cast<size_t>(count);
  }

  size_t position() const { return position_; }

 private:
  size_t left() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(uint64_t size, const std::string& what) {
    if (size > left())
      fail("{}: truncated: {} takes {} bytes, the file has {} there", where_, what, size, left());
    const auto taken = bytes_.subspan(position_, size);
    position_ += size;
    return taken;
  }

  std::span<const std::byte> bytes_;
  const std::string& where_;
  size_t position_ = 0;
};

// ---- values

template <class T>
T read_element(Cursor& in, const std::string& what) {
  if constexpr (std::is_same_v<T, std::string>) {
    return in.string(what);
  } else if constexpr (std::is_same_v<T, bool>) {
    return in.number<uint8_t>(what) != 0;
  } else {
    return in.number<T>(what);
  }
}

struct ValueReader {
  Cursor& in;
  const std::string& where;
  const std::string& what;

  void operator()(std::monostate&) const { fail("{}: {}: an array of arrays", where, what); }
  void operator()(GgufArray& array) const { read_alternative(array, in.number<uint32_t>(what)); }
  template <class T>
  void operator()(std::vector<T>& list) const {
    constexpr size_t kSmallest = std::is_same_v<T, std::string> ? sizeof(uint64_t) : sizeof(T);
    const size_t count = in.count(kSmallest, what);
    list.reserve(count);
    for (size_t i = 0; i < count; ++i) list.push_back(read_element<T>(in, what));
  }
  template <class T>
  void operator()(T& value) const {
    value = read_element<T>(in, what);
  }

  // Makes `variant` hold its alternative `number`, and reads that.
  template <class Variant, size_t index = 0>
  void read_alternative(Variant& variant, uint32_t number) const {
    if constexpr (index == std::variant_size_v<Variant>) {
      fail("{}: {}: unknown type {}", where, what, number);
    } else if (number == index) {
      (*this)(variant.template emplace<index>());
    } else {
      read_alternative<Variant, index + 1>(variant, number);
    }
  }
};

GgufMetadata read_metadata(Cursor& in, size_t count, const std::string& where) {
  GgufMetadata metadata;
  std::unordered_set<std::string> seen;
  for (size_t i = 0; i < count; ++i) {
    std::string key = in.string(fmt::format("key {} of {}", i + 1, count));
    const std::string what = fmt::format("key '{}'", printable(key));
    if (!seen.insert(key).second) fail("{}: {}: comes twice", where, what);
    GgufValue value;
    ValueReader{in, where, what}.read_alternative(value, in.number<uint32_t>(what));
    metadata.emplace_back(std::move(key), std::move(value));
  }
  return metadata;
}

// ---- tensors

// nullopt when it does not fit, or a row is not whole blocks.
std::optional<int64_t> byte_size_of(const GgmlTypeInfo& type, std::span<const int64_t> shape) {
  if (shape.empty() || shape.back() % type.block_values != 0) return std::nullopt;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(shape.back() / type.block_values, type.block_bytes, &bytes))
    return std::nullopt;
  for (const int64_t size : shape.first(shape.size() - 1))
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  return bytes;
}

struct PlacedTensor {
  GgufTensor tensor;
  uint64_t begin = 0;  // from the start of the data
  uint64_t size = 0;
};

PlacedTensor read_tensor(Cursor& in, size_t index, size_t count, const std::string& where) {
  PlacedTensor placed;
  GgufTensor& tensor = placed.tensor;
  tensor.name = in.string(fmt::format("tensor {} of {}", index + 1, count));
  const std::string what = fmt::format("tensor '{}'", printable(tensor.name));
  const auto dimensions = in.number<uint32_t>(what);
  if (dimensions < 1 || dimensions > kMostDimensions)
    fail("{}: {}: {} dimensions, expected 1 to {}", where, what, dimensions, kMostDimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.number<uint64_t>(what);
    if (size < 1 || size > INT64_MAX) fail("{}: {}: a size of {}", where, what, size);
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const auto number = in.number<uint32_t>(what);
  const GgmlTypeInfo* type = find_ggml_type(number);
  if (type == nullptr) fail("{}: {}: type {} is not supported", where, what, type_name(number));
  tensor.type = type->type;
  const auto size = byte_size_of(*type, tensor.shape);
  if (!size)
    fail("{}: {}: shape {} cannot be stored as {}", where, what, shape_string(tensor.shape),
         type->name);
  placed.size = static_cast<uint64_t>(*size);
  placed.begin = in.number<uint64_t>(what);
  return placed;
}

// Aligned, inside the data, and apart.
void check_places(const std::vector<PlacedTensor>& tensors, uint64_t alignment, uint64_t available,
                  const std::string& where) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return tensors[a].begin < tensors[b].begin; });
  uint64_t end = 0;
  const PlacedTensor* previous = nullptr;
  for (const size_t i : order) {
    const PlacedTensor& next = tensors[i];
    const auto complain = [&](const std::string& problem) {
      fail("{}: tensor '{}': {} bytes at offset {}: {}", where, printable(next.tensor.name),
           next.size, next.begin, problem);
    };
    if (next.begin % alignment != 0) complain(fmt::format("not a multiple of {}", alignment));
    if (next.begin > available || next.size > available - next.begin)
      complain(fmt::format("truncated: the data has {} bytes", available));
    if (next.begin < end)
      complain(fmt::format("overlap those of '{}'", printable(previous->tensor.name)));
    end = next.begin + next.size;
    previous = &next;
  }
}

uint32_t read_version(Cursor& in, std::span<const std::byte> bytes, const std::string& where) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs"))
    throw Error(ErrorKind::kInput, fmt::format("{}: a Git LFS pointer, not the model", where),
                "run `git lfs pull` in the folder, or download the file again");
  if (!text.starts_with(kMagic)) fail("{}: not a GGUF file: it does not start with GGUF", where);
  in.number<uint32_t>("the magic number");
  const auto version = in.number<uint32_t>("the version");
  if (version != 0 && version << 16 == 0)
    fail("{}: a big-endian GGUF file, which is not supported", where);
  if (version != 2 && version != 3)
    fail("{}: GGUF version {}, only 2 and 3 are supported", where, version);
  return version;
}

int64_t alignment_of(const GgufContents& contents, const std::string& where) {
  const GgufValue* value = contents.find(kAlignmentKey);
  if (value == nullptr) return GgufWriter::kAlignment;
  const auto* number = std::get_if<uint32_t>(value);
  if (number == nullptr || !std::has_single_bit(*number))
    fail("{}: key '{}': expected a power of two as a u32", where, kAlignmentKey);
  return *number;
}

// ---- writing

struct ValueWriter {
  std::string& out;

  template <class T>
  void number(T value) const {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void operator()(const std::string& text) const {
    number(uint64_t{text.size()});
    out += text;
  }
  void operator()(std::monostate) const { LAPIDARY_CHECK(false, "an array without a type"); }
  void operator()(const GgufArray& array) const {
    number(static_cast<uint32_t>(array.index()));
    std::visit(*this, array);
  }
  template <class T>
  void operator()(const std::vector<T>& list) const {
    number(uint64_t{list.size()});
    for (const T& element : list) (*this)(element);
  }
  template <class T>
  void operator()(T value) const {
    static_assert(std::is_arithmetic_v<T>);
    number(value);
  }
};

int64_t padded(int64_t size) {
  return (size + GgufWriter::kAlignment - 1) / GgufWriter::kAlignment * GgufWriter::kAlignment;
}

std::string header_bytes(const GgufMetadata& metadata,
                         const std::vector<GgufTensorDeclaration>& declarations) {
  std::string header(kMagic);
  const ValueWriter put{header};
  put.number(uint32_t{3});
  put.number(uint64_t{declarations.size()});
  put.number(uint64_t{metadata.size()});
  for (const auto& [key, value] : metadata) {
    put(key);
    put.number(static_cast<uint32_t>(value.index()));
    std::visit(put, value);
  }
  int64_t offset = 0;
  for (const GgufTensorDeclaration& d : declarations) {
    put(d.name);
    put.number(static_cast<uint32_t>(d.shape.size()));
    for (auto size = d.shape.rbegin(); size != d.shape.rend(); ++size)
      put.number(static_cast<uint64_t>(*size));
    put.number(static_cast<uint32_t>(d.type));
    put.number(static_cast<uint64_t>(offset));
    offset += padded(d.byte_size());
  }
  header.resize(static_cast<size_t>(padded(std::ssize(header))));
  return header;
}

}  // namespace

const GgmlTypeInfo* find_ggml_type(uint32_t number) {
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& info) {
    return static_cast<uint32_t>(info.type) == number;
  });
  return type == std::end(kTypes) ? nullptr : type;
}

const GgmlTypeInfo& info_of(GgmlType type) {
  return *find_ggml_type(static_cast<uint32_t>(type));
}

const GgufValue* GgufContents::find(std::string_view key) const {
  for (const auto& [name, value] : metadata)
    if (name == key) return &value;
  return nullptr;
}

const GgufTensor* GgufContents::find_tensor(std::string_view name) const {
  for (const GgufTensor& tensor : tensors)
    if (tensor.name == name) return &tensor;
  return nullptr;
}

GgufContents parse_gguf(std::span<const std::byte> bytes, const std::string& where) {
  constexpr size_t kSmallestTensor = 8 + 4 + 8 + 4 + 8;  // name, dimensions, size, type, offset
  constexpr size_t kSmallestValue = 8 + 4 + 1;           // name, type, value
  Cursor in(bytes, where);
  GgufContents contents;
  contents.version = read_version(in, bytes, where);
  const size_t tensors = in.count(kSmallestTensor, "the number of tensors");
  const size_t values = in.count(kSmallestValue, "the number of keys");
  contents.metadata = read_metadata(in, values, where);
  contents.alignment = alignment_of(contents, where);

  std::vector<PlacedTensor> placed;
  std::unordered_set<std::string> seen;
  for (size_t i = 0; i < tensors; ++i) {
    placed.push_back(read_tensor(in, i, tensors, where));
    const std::string& name = placed.back().tensor.name;
    if (!seen.insert(name).second) fail("{}: tensor '{}': comes twice", where, printable(name));
  }
  const auto alignment = static_cast<size_t>(contents.alignment);
  const size_t start = (in.position() + alignment - 1) / alignment * alignment;
  const auto data = bytes.subspan(std::min(start, bytes.size()));
  check_places(placed, alignment, data.size(), where);
  for (PlacedTensor& p : placed) {
    p.tensor.bytes = data.subspan(p.begin, p.size);
    contents.tensors.push_back(std::move(p.tensor));
  }
  return contents;
}

GgufFile::GgufFile(std::vector<MappedFile> files, GgufContents contents)
    : files_(std::move(files)), contents_(std::move(contents)) {}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  std::vector<MappedFile> files;
  files.push_back(MappedFile::open(path));
  GgufContents contents = parse_gguf(files.front().bytes(), path.string());
  add_split_parts(files, contents);
  return GgufFile(std::move(files), std::move(contents));
}

void GgufFile::release_pages() const {
  for (const MappedFile& file : files_) file.release_pages();
}

int64_t GgufTensorDeclaration::byte_size() const {
  const auto size = byte_size_of(info_of(type), shape);
  LAPIDARY_CHECK(size, fmt::format("tensor '{}' of shape {}", name, shape_string(shape)));
  return *size;
}

GgufWriter::GgufWriter(std::filesystem::path path, const GgufMetadata& metadata,
                       const std::vector<GgufTensorDeclaration>& declarations)
    : file_(std::move(path)) {
  const std::string header = header_bytes(metadata, declarations);
  file_bytes_ = std::ssize(header);
  std::vector<RegionWriter::Region> regions;
  for (const GgufTensorDeclaration& d : declarations) {
    regions.push_back({file_bytes_, d.byte_size()});
    file_bytes_ += padded(regions.back().size);
  }
  file_.create(header, std::move(regions), file_bytes_);
}

}  // namespace lapidary
