// GGUF files: metadata of typed keys and values, then tensors, in one little-endian file.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "io/region_writer.h"

namespace lapidary {

// The numbers that the format has for the types of tensors. Types of blocks store a row as so many
// values that share scales; src/quant has the layouts that are written here.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;  // "Q4_0"
  int64_t block_values;   // 1 for plain types
  int64_t block_bytes;
};
// Of a type's number in a file; nullptr for one that is not in the list above.
const GgmlTypeInfo* find_ggml_type(uint32_t number);
const GgmlTypeInfo& info_of(GgmlType type);

// The place of an alternative is the format's number for the type; arrays hold no arrays.
template <template <class> class Of, class Array>
using GgufVariant = std::variant<Of<uint8_t>, Of<int8_t>, Of<uint16_t>, Of<int16_t>, Of<uint32_t>,
                                 Of<int32_t>, Of<float>, Of<bool>, Of<std::string>, Array,
                                 Of<uint64_t>, Of<int64_t>, Of<double>>;
template <class T>
using GgufScalar = T;
template <class T>
using GgufList = std::vector<T>;
using GgufArray = GgufVariant<GgufList, std::monostate>;
using GgufValue = GgufVariant<GgufScalar, GgufArray>;

using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;  // in the order of the file

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;        // rows first: the format's dimensions in reverse
  std::span<const std::byte> bytes;  // row-major, each row whole blocks
};

// What a file holds. The tensors' bytes point into those that were parsed.
struct GgufContents {
  uint32_t version = 3;
  int64_t alignment = 32;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file

  const GgufValue* find(std::string_view key) const;           // nullptr when there is none
  const GgufTensor* find_tensor(std::string_view name) const;  // likewise
};

// Parses a whole file held in memory, version 2 or 3; metadata is copied, tensors are not. `where`
// names the file in messages.
//
// Throws Error{kInput}, one line that names the file, the key or tensor, what was found and what
// was expected, when the file is cut or of another format, version or byte order, a name comes
// twice, a type is unknown or an array of arrays, a shape cannot be, or tensors are not aligned,
// overlap or lie past the end.
GgufContents parse_gguf(std::span<const std::byte> bytes, const std::string& where);

// A mapped GGUF file, or all the files of a split model (gguf_split.h). The tensors' bytes are
// valid while the object lives, moved or not.
class GgufFile {
 public:
  // Of a split model the first file. Throws what MappedFile::open, parse_gguf and add_split_parts
  // throw.
  static GgufFile open(const std::filesystem::path& path);

  const GgufContents& contents() const { return contents_; }
  // Gives back the memory of the metadata, of which a vocabulary is tens of megabytes.
  void forget_metadata() { GgufMetadata().swap(contents_.metadata); }
  const std::filesystem::path& path() const { return files_.front().path(); }
  const std::vector<MappedFile>& files() const { return files_; }
  void release_pages() const;  // mapped_file.h

 private:
  GgufFile(std::vector<MappedFile> files, GgufContents contents);

  std::vector<MappedFile> files_;
  GgufContents contents_;
};

struct GgufTensorDeclaration {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // rows first, 1 to 4 sizes

  int64_t byte_size() const;
};

// Writes one file of version 3 in pieces: declare everything, then write the tensors' bytes one
// after another in the order of the declarations, then finish(). The file takes its name then
// (output_file.h). No more than a piece is ever held in memory.
class GgufWriter {
 public:
  static constexpr int64_t kAlignment = 32;  // what readers assume where the metadata says nothing

  // Names and shapes must be such as parse_gguf accepts. Throws Error{kResource} as OutputFile
  // does.
  GgufWriter(std::filesystem::path path, const GgufMetadata& metadata,
             const std::vector<GgufTensorDeclaration>& declarations);

  // The next bytes of the data, without the gaps between tensors; a piece may end anywhere, also
  // span tensors. More bytes than were declared is a programming error. Throws Error{kResource}.
  void write(std::span<const std::byte> bytes) { file_.write(bytes); }

  // All declared bytes must have been written. Throws Error{kResource}.
  void finish() { file_.finish(); }

  // Bytes of tensor data that were declared, and of them written, for progress.
  int64_t total_bytes() const { return file_.total_bytes(); }
  int64_t written_bytes() const { return file_.written_bytes(); }
  int64_t file_bytes() const { return file_bytes_; }

 private:
  RegionWriter file_;
  int64_t file_bytes_ = 0;
};

}  // namespace lapidary
