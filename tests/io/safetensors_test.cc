#include "io/safetensors.h"

#include <cstring>
#include <string>
#include <vector>

#include "io/test_files.h"

namespace lapidary {
namespace {

// The header of tensors a: F32 [2] and b: U8 [3], and their 11 bytes.
constexpr const char* kGood = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                              R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";

SafetensorsContents parse(const std::string& bytes) {
  return parse_safetensors(as_span(bytes), "f");
}

TEST(Safetensors, ViewsPointIntoTheBytes) {
  const std::string bytes =
      safetensors_bytes(R"({"z":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                        R"("__metadata__":{"format":"pt"},)"
                        R"("empty":{"dtype":"F32","shape":[0,4],"data_offsets":[8,8]},)"
                        R"("scalar":{"dtype":"U8","shape":[],"data_offsets":[8,9]}}   )",
                        9);
  const SafetensorsContents contents = parse(bytes);
  ASSERT_EQ(contents.tensors.size(), 3u);
  EXPECT_EQ(contents.tensors[0].name, "empty");
  EXPECT_EQ(contents.tensors[1].name, "scalar");
  EXPECT_EQ(contents.tensors[2].name, "z");
  EXPECT_EQ(contents.metadata, (Metadata{{"format", "pt"}}));

  const TensorView* z = contents.find("z");
  ASSERT_NE(z, nullptr);
  EXPECT_EQ(z->dtype, DType::kF32);
  EXPECT_EQ(z->shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(z->bytes.size(), 8u);
  EXPECT_EQ(z->bytes.data(), as_span(bytes).data() + bytes.size() - 9);
  EXPECT_EQ(contents.find("scalar")->elements(), 1);
  EXPECT_EQ(contents.find("empty")->elements(), 0);
  EXPECT_EQ(contents.find("y"), nullptr);
  EXPECT_EQ(contents.find("zz"), nullptr);
}

TEST(Safetensors, MetadataMayBeNull) {  // as MLX writes none
  EXPECT_EQ(parse(safetensors_bytes(R"({"__metadata__":null})", 0)).metadata, Metadata{});
}

TEST(Safetensors, EveryDtypeIsRead) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kU8, DType::kI32,
                           DType::kU32, DType::kI64}) {
    const auto size = static_cast<size_t>(size_of(type));
    const std::string header = R"({"t":{"dtype":")" + std::string(name_of(type)) +
                               R"(","shape":[1],"data_offsets":[0,)" + std::to_string(size) + "]}}";
    const std::string bytes = safetensors_bytes(header, size);
    EXPECT_EQ(parse(bytes).find("t")->dtype, type);
  }
}

// MLX does not pad its headers: the data may lie at any address.
TEST(Safetensors, UnalignedDataIsReadAndKnownAsSuch) {
  const std::string header = R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  alignas(8) char buffer[256];
  for (const auto& [text, aligned] : {std::pair(padded, true), std::pair(padded + " ", false)}) {
    const std::string bytes = safetensors_bytes(text, 4);
    std::memcpy(buffer, bytes.data(), bytes.size());
    const auto span = std::as_bytes(std::span(buffer, bytes.size()));
    EXPECT_EQ(is_aligned(*parse_safetensors(span, "f").find("t")), aligned);
  }
}

struct Corruption {
  const char* name;
  std::string bytes;
  std::string message;
};

// One tensor `t` with these three values, as JSON, and `data_size` bytes.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t data_size) {
  return safetensors_bytes(
      R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      data_size);
}

std::vector<Corruption> broken_headers() {
  const std::string good = safetensors_bytes(kGood, 11);
  const std::string header_size = std::to_string(std::string(kGood).size());
  return {
      {"empty file", "", "f: truncated: 0 bytes, a safetensors file has at least 8"},
      {"cut in the length", good.substr(0, 7),
       "f: truncated: 7 bytes, a safetensors file has at least 8"},
      {"cut in the header", good.substr(0, 30),
       "f: truncated: header of " + header_size + " bytes, the file has 22 after its length"},
      {"length of 2^64-1", length_bytes(UINT64_MAX) + kGood,
       "f: header of 18446744073709551615 bytes, expected at most 100000000: not a safetensors "
       "file"},
      {"length above the limit", length_bytes(100'000'001) + kGood,
       "f: header of 100000001 bytes, expected at most 100000000: not a safetensors file"},
      {"length beyond the file", length_bytes(100'000'000) + "{}",
       "f: truncated: header of 100000000 bytes, the file has 2 after its length"},
      {"length of 0", length_bytes(0), "f: header does not start with '{'"},
      {"length too short by one", length_bytes(std::string(kGood).size() - 1) + kGood,
       "f: header is not valid JSON (stopped at byte 107 of 106)"},
      {"LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
       "f: a Git LFS pointer, not the weights"},
      {"header is a list", safetensors_bytes("[]", 0), "f: header does not start with '{'"},
      {"header starts with a space", safetensors_bytes(" {}", 0),
       "f: header does not start with '{'"},
      {"not JSON", safetensors_bytes(R"({"t":})", 0),
       "f: header is not valid JSON (stopped at byte 6 of 6)"},
      {"not UTF-8", safetensors_bytes("{\"\xff\":1}", 0),
       "f: header is not valid JSON (stopped at byte 3 of 7)"},
      {"zeros after the JSON", safetensors_bytes(std::string("{}\0\0", 4), 0),
       "f: header is not valid JSON (stopped at byte 3 of 4)"},
      {"a number out of range", safetensors_bytes(R"({"t":1e999})", 0),
       "f: header with a number that no double can hold"},
      {"nested deeply", safetensors_bytes(R"({"t":)" + std::string(50, '[') + "}", 0),
       "f: header nested deeper than 8 levels"},
      {"name twice",
       safetensors_bytes(R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                         R"("t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                         1),
       "f: tensor 't': listed twice"},
      {"metadata twice", safetensors_bytes(R"({"__metadata__":{},"__metadata__":{}})", 0),
       "f: tensor '__metadata__': listed twice"},
      {"metadata is a list", safetensors_bytes(R"({"__metadata__":[]})", 0),
       "f: __metadata__: expected an object, found []"},
      {"metadata of a number", safetensors_bytes(R"({"__metadata__":{"k":1}})", 0),
       "f: __metadata__: 'k': expected a string, found 1"},
      {"tensor is a number", safetensors_bytes(R"({"t":1})", 0),
       "f: tensor 't': expected an object, found 1"},
      {"newline in the name", safetensors_bytes(R"({"a\nb\u0000":1})", 0),
       "f: tensor 'a\\x0ab\\x00': expected an object, found 1"},
      {"no dtype", safetensors_bytes(R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1),
       "f: tensor 't': dtype: missing"},
      {"no shape", safetensors_bytes(R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", 1),
       "f: tensor 't': shape: missing"},
      {"no data_offsets", safetensors_bytes(R"({"t":{"dtype":"U8","shape":[1]}})", 1),
       "f: tensor 't': data_offsets: missing"},
  };
}

std::vector<Corruption> broken_tensors() {
  const auto unsupported = [](const std::string& type) {
    return "f: tensor 't': dtype " + type +
           " is not supported (expected F32, F16, BF16, U8, I32, U32 or I64)";
  };
  const std::string sizes = "f: tensor 't': shape: expected a list of sizes >= 0, found ";
  const std::string offsets = "f: tensor 't': data_offsets: expected [begin, end], found ";
  return {
      {"dtype is a number", one("1", "[1]", "[0,1]", 1),
       "f: tensor 't': dtype: expected a string, found 1"},
      {"F64", one(R"("F64")", "[1]", "[0,8]", 8), unsupported("F64")},
      {"I8", one(R"("I8")", "[1]", "[0,1]", 1), unsupported("I8")},
      {"F8_E4M3", one(R"("F8_E4M3")", "[1]", "[0,1]", 1), unsupported("F8_E4M3")},
      {"BOOL", one(R"("BOOL")", "[1]", "[0,1]", 1), unsupported("BOOL")},
      {"lower case", one(R"("f32")", "[1]", "[0,4]", 4), unsupported("f32")},
      {"shape is a number", one(R"("U8")", "1", "[0,1]", 1), sizes + "1"},
      {"negative size", one(R"("U8")", "[-1]", "[0,1]", 1), sizes + "[-1]"},
      {"fractional size", one(R"("U8")", "[1.0]", "[0,1]", 1), sizes + "[1.0]"},
      {"size above 2^63", one(R"("U8")", "[9223372036854775808]", "[0,1]", 1),
       sizes + "[9223372036854775808]"},
      {"product overflows", one(R"("U8")", "[4294967296,4294967296]", "[0,1]", 1),
       "f: tensor 't': shape [4294967296,4294967296]: more bytes than 2^63"},
      {"bytes overflow", one(R"("F32")", "[4611686018427387904]", "[0,0]", 0),
       "f: tensor 't': shape [4611686018427387904]: more bytes than 2^63"},
      {"overflow hidden by a zero", one(R"("U8")", "[4294967296,4294967296,0]", "[0,0]", 0),
       "f: tensor 't': shape [4294967296,4294967296,0]: more bytes than 2^63"},
      {"one offset", one(R"("U8")", "[1]", "[0]", 1), offsets + "[0]"},
      {"three offsets", one(R"("U8")", "[1]", "[0,1,2]", 1), offsets + "[0,1,2]"},
      {"negative offset", one(R"("U8")", "[1]", "[-1,0]", 1), offsets + "[-1,0]"},
      {"offset above 2^63", one(R"("U8")", "[1]", "[0,18446744073709551615]", 1),
       offsets + "[0,18446744073709551615]"},
      {"reversed", one(R"("U8")", "[1]", "[1,0]", 1),
       "f: tensor 't': data_offsets [1, 0]: end before begin"},
      {"too short for the shape", one(R"("F32")", "[2,3]", "[0,20]", 20),
       "f: tensor 't': shape [2, 3] of F32 has 24 bytes, data_offsets [0, 20] hold 20"},
      {"too long for the shape", one(R"("U8")", "[]", "[0,2]", 2),
       "f: tensor 't': shape [] of U8 has 1 bytes, data_offsets [0, 2] hold 2"},
  };
}

std::vector<Corruption> broken_layouts() {
  const auto two = [](const std::string& a, const std::string& b, size_t data_size) {
    return safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                                 R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                             data_size);
  };
  const std::string good = safetensors_bytes(kGood, 11);
  return {
      {"cut in the data", good.substr(0, good.size() - 5),
       "f: truncated: 5 of 11 bytes of data are missing"},
      {"no data at all", safetensors_bytes(kGood, 0),
       "f: truncated: 11 of 11 bytes of data are missing"},
      {"far out of the file", one(R"("U8")", "[1]", "[9223372036854775806,9223372036854775807]", 1),
       "f: tensor 't': data_offsets [9223372036854775806, 9223372036854775807] leave a hole: the "
       "data before them ends at 0"},
      {"bytes after the data", good + "xyz",
       "f: 3 bytes after the last tensor, expected the end of the file"},
      {"data without tensors", safetensors_bytes("{}", 4),
       "f: 4 bytes after the last tensor, expected the end of the file"},
      {"same bytes twice", two("[0,4]", "[0,4]", 4),
       "f: tensor 'b': data_offsets [0, 4] overlap those of 'a' [0, 4]"},
      {"overlap", two("[2,6]", "[0,4]", 6),
       "f: tensor 'a': data_offsets [2, 6] overlap those of 'b' [0, 4]"},
      {"hole", two("[0,4]", "[5,9]", 9),
       "f: tensor 'b': data_offsets [5, 9] leave a hole: the data before them ends at 4"},
      {"hole at the start", two("[1,5]", "[5,9]", 9),
       "f: tensor 'a': data_offsets [1, 5] leave a hole: the data before them ends at 0"},
  };
}

void expect_refused(const std::vector<Corruption>& corruptions) {
  for (const Corruption& c : corruptions)
    EXPECT_EQ(error_of([&] { parse(c.bytes); }), c.message) << c.name;
}

TEST(Safetensors, BrokenHeadersAreRefused) {
  expect_refused(broken_headers());
}
TEST(Safetensors, BrokenTensorsAreRefused) {
  expect_refused(broken_tensors());
}
TEST(Safetensors, BrokenLayoutsAreRefused) {
  expect_refused(broken_layouts());
}

TEST(Safetensors, EveryCutOfAFileIsRefused) {
  const std::string good = safetensors_bytes(kGood, 11);
  EXPECT_EQ(parse(good).tensors.size(), 2u);
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_NE(error_of([&] { parse(good.substr(0, size)); }), "no error") << size;
}

TEST(Safetensors, FileKeepsItsViewsWhenMoved) {
  const ScratchFolder folder;
  folder.write("t.safetensors", safetensors_bytes(kGood, 11));
  SafetensorsFile file = SafetensorsFile::open(folder.path() / "t.safetensors");
  const SafetensorsFile moved = std::move(file);
  ASSERT_NE(moved.find("b"), nullptr);
  EXPECT_EQ(moved.find("b")->bytes[2], std::byte{10});
  EXPECT_EQ(
      error_of([&] { SafetensorsFile::open(folder.path() / "none"); }, folder.path().string()),
      "/none: No such file or directory");
}

}  // namespace
}  // namespace lapidary
