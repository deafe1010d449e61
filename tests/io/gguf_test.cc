#include "io/gguf.h"

#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "io/test_files.h"

namespace lapidary {
namespace {

const char* const kSmall = LAPIDARY_SOURCE_DIR "/tests/golden/small.gguf";

std::vector<GgufTensorDeclaration> declarations_of(const GgufContents& contents) {
  std::vector<GgufTensorDeclaration> declarations;
  for (const GgufTensor& t : contents.tensors) declarations.push_back({t.name, t.type, t.shape});
  return declarations;
}

// ---- files, piece by piece

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string text(const std::string& s) {
  return raw(uint64_t{s.size()}) + s;
}
std::string head(uint64_t tensors, uint64_t values, uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(values);
}
std::string value(const std::string& key, uint32_t type, const std::string& bytes) {
  return text(key) + raw(type) + bytes;
}
std::string tensor(const std::string& name, const std::vector<uint64_t>& sizes, uint32_t type,
                   uint64_t offset) {
  std::string bytes = text(name) + raw(static_cast<uint32_t>(sizes.size()));
  for (const uint64_t size : sizes) bytes += raw(size);
  return bytes + raw(type) + raw(offset);
}
std::string with_data(std::string header, size_t size) {
  header.resize((header.size() + 31) / 32 * 32);
  return header + std::string(size, 'd');
}
std::string message(const std::string& bytes) {
  return error_of([&] { parse_gguf(as_span(bytes), "f"); });
}

// ---- tests

template <class T>
void expect_value(const GgufContents& contents, const char* key, const T& expected) {
  const GgufValue* found = contents.find(key);
  ASSERT_NE(found, nullptr) << key;
  ASSERT_TRUE(std::holds_alternative<T>(*found)) << key << " has type " << found->index();
  EXPECT_EQ(std::get<T>(*found), expected) << key;
}

// What the Python package wrote (tools/make_gguf_golden.py).
TEST(Gguf, ReadsEveryType) {
  const GgufFile file = GgufFile::open(kSmall);
  const GgufContents& c = file.contents();
  EXPECT_EQ(c.version, 3u);
  EXPECT_EQ(c.alignment, 32);
  EXPECT_EQ(c.metadata[0].first, "general.architecture");
  expect_value(c, "general.architecture", std::string("gemma3"));
  expect_value(c, "t.u8", uint8_t{200});
  expect_value(c, "t.i8", int8_t{-100});
  expect_value(c, "t.u16", uint16_t{60000});
  expect_value(c, "t.i16", int16_t{-30000});
  expect_value(c, "t.u32", uint32_t{4000000000});
  expect_value(c, "t.i32", int32_t{-2000000000});
  expect_value(c, "t.f32", 0.5f);
  expect_value(c, "t.bool", true);
  expect_value(c, "t.string", std::string("naïve ▁"));
  expect_value(c, "t.u64", (uint64_t{1} << 63) + 1);
  expect_value(c, "t.i64", -(int64_t{1} << 62));
  expect_value(c, "t.f64", 0.1);
  expect_value(c, "t.strings", GgufArray(std::vector<std::string>{"a", "", "▁b"}));
  expect_value(c, "t.floats", GgufArray(std::vector<float>{0.25f, -1.5f}));
  expect_value(c, "t.ints", GgufArray(std::vector<int32_t>{3, -4, 5}));
  EXPECT_EQ(c.find("t.none"), nullptr);

  EXPECT_EQ(c.find_tensor("none"), nullptr);
  EXPECT_EQ(c.find_tensor("f32")->shape, (std::vector<int64_t>{3, 32}));
  EXPECT_EQ(c.find_tensor("vector")->shape, (std::vector<int64_t>{5}));
  EXPECT_EQ(c.find_tensor("f16")->type, GgmlType::kF16);
  EXPECT_EQ(c.find_tensor("q4_0")->shape, (std::vector<int64_t>{3, 64}));
  EXPECT_EQ(c.find_tensor("q4_0")->bytes.size(), 3 * 2 * 18u);
  EXPECT_EQ(c.find_tensor("q8_0")->bytes.size(), 3 * 2 * 34u);
  float first;
  std::memcpy(&first, c.find_tensor("vector")->bytes.data(), sizeof first);
  float same;
  std::memcpy(&same, c.find_tensor("f32")->bytes.data(), sizeof same);
  EXPECT_EQ(first, same);
}

// Byte for byte what the Python package writes, in pieces of any size.
TEST(Gguf, WritesWhatTheReferenceWrites) {
  const ScratchFolder folder;
  const GgufFile golden = GgufFile::open(kSmall);
  std::string data;
  for (const GgufTensor& t : golden.contents().tensors)
    data.append(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size());
  const std::string expected = ScratchFolder().read(kSmall);  // an absolute path stays as it is
  ASSERT_FALSE(expected.empty());
  for (const size_t piece : {size_t{1}, size_t{100}, data.size()}) {
    GgufWriter writer(folder.path() / "f", golden.contents().metadata,
                      declarations_of(golden.contents()));
    EXPECT_EQ(writer.total_bytes(), std::ssize(data));
    EXPECT_EQ(writer.file_bytes(), std::ssize(expected));
    for (size_t at = 0; at < data.size(); at += piece)
      writer.write(as_span(data).subspan(at, std::min(piece, data.size() - at)));
    EXPECT_EQ(writer.written_bytes(), writer.total_bytes());
    writer.finish();
    EXPECT_TRUE(folder.read("f") == expected) << piece;
  }
}

TEST(Gguf, WithoutFinishNothingIsLeft) {
  const ScratchFolder folder;
  {
    GgufWriter writer(folder.path() / "f", {}, {{"a", GgmlType::kF32, {2}}});
    writer.write(as_span("abcd"));
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(GgufDeathTest, MisuseIsCaught) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const ScratchFolder folder;
  EXPECT_DEATH(GgufWriter(folder.path() / "f", {}, {{"a", GgmlType::kQ4_0, {2, 33}}}), "2, 33");
  GgufWriter writer(folder.path() / "f", {}, {{"a", GgmlType::kF32, {2}}});
  EXPECT_DEATH(writer.write(as_span("123456789")), "9 bytes written, 8 of 8 were left");
  EXPECT_DEATH(writer.finish(), "0 of 8 declared bytes written");
}

TEST(Gguf, RefusesOtherFiles) {
  EXPECT_EQ(message(""), "f: not a GGUF file: it does not start with GGUF");
  EXPECT_EQ(message("ggjt"), "f: not a GGUF file: it does not start with GGUF");
  EXPECT_EQ(message("version https://git-lfs.github.com"), "f: a Git LFS pointer, not the model");
  EXPECT_EQ(message(head(0, 0, 1)), "f: GGUF version 1, only 2 and 3 are supported");
  EXPECT_EQ(message(head(0, 0, 0x03000000)), "f: a big-endian GGUF file, which is not supported");
  EXPECT_EQ(message(head(0, 0, 2)), "no error");
  EXPECT_EQ(message("GGUF"), "f: truncated: the version takes 4 bytes, the file has 0 there");
}

// Cut anywhere, even inside the padding before the data, it is an error and never a crash.
TEST(Gguf, RefusesAFileThatIsCut) {
  const std::string whole = ScratchFolder().read(kSmall);
  const GgufFile file = GgufFile::open(kSmall);
  const auto& last = file.contents().tensors.back().bytes;
  const size_t padding = whole.size() % 32 == 0 ? (32 - last.size() % 32) % 32 : 0;
  for (size_t size = 0; size < whole.size() - padding; ++size)
    EXPECT_NE(message(whole.substr(0, size)), "no error") << size;
  EXPECT_EQ(message(whole.substr(0, whole.size() - padding)), "no error");
}

TEST(Gguf, RefusesBadMetadata) {
  const std::string u8 = raw(uint8_t{1});
  EXPECT_EQ(message(head(0, 2) + value("k", 0, u8) + value("k", 0, u8)), "f: key 'k': comes twice");
  EXPECT_EQ(message(head(0, 1) + value("k", 13, u8)), "f: key 'k': unknown type 13");
  EXPECT_EQ(message(head(0, 1) + value("k", 9, raw(uint32_t{9}) + raw(uint64_t{0}))),
            "f: key 'k': an array of arrays");
  EXPECT_EQ(message(head(0, uint64_t{1} << 60)),
            "f: the number of keys: 1152921504606846976 of them cannot be in the 0 bytes that "
            "follow");
  EXPECT_EQ(message(head(0, 1) + value("k", 9, raw(uint32_t{8}) + raw(uint64_t{1} << 62))),
            "f: key 'k': 4611686018427387904 of them cannot be in the 0 bytes that follow");
  EXPECT_EQ(message(head(0, 1) + value("k", 8, raw(UINT64_MAX))),
            "f: truncated: key 'k' takes 18446744073709551615 bytes, the file has 0 there");
  EXPECT_EQ(message(head(0, 1) + raw(uint64_t{100}) + "kkkkkkkk"),
            "f: truncated: key 1 of 1 takes 100 bytes, the file has 8 there");
  const auto alignment = [](uint32_t type, const std::string& bytes) {
    return message(head(0, 1) + value("general.alignment", type, bytes));
  };
  for (const uint32_t wrong : {0u, 24u})
    EXPECT_EQ(alignment(4, raw(wrong)),
              "f: key 'general.alignment': expected a power of two as a u32");
  EXPECT_EQ(alignment(5, raw(int32_t{32})),
            "f: key 'general.alignment': expected a power of two as a u32");
  EXPECT_EQ(alignment(4, raw(uint32_t{64})), "no error");
}

TEST(Gguf, RefusesBadTensors) {
  const auto one = [](const std::vector<uint64_t>& sizes, uint32_t type, uint64_t offset = 0) {
    return message(with_data(head(1, 0) + tensor("t", sizes, type, offset), 64));
  };
  EXPECT_EQ(one({8, 2}, 0), "no error");
  EXPECT_EQ(one({}, 0), "f: tensor 't': 0 dimensions, expected 1 to 4");
  EXPECT_EQ(one({1, 1, 1, 1, 1}, 0), "f: tensor 't': 5 dimensions, expected 1 to 4");
  EXPECT_EQ(one({0, 3}, 0), "f: tensor 't': a size of 0");
  EXPECT_EQ(one({UINT64_MAX}, 0), "f: tensor 't': a size of 18446744073709551615");
  EXPECT_EQ(one({1}, 4), "f: tensor 't': type 4 is not supported");
  EXPECT_EQ(one({33, 2}, 2), "f: tensor 't': shape [2, 33] cannot be stored as Q4_0");
  EXPECT_EQ(one({uint64_t{1} << 40, uint64_t{1} << 40}, 0),
            "f: tensor 't': shape [1099511627776, 1099511627776] cannot be stored as F32");
  EXPECT_EQ(one({8}, 0, 8), "f: tensor 't': 32 bytes at offset 8: not a multiple of 32");
  EXPECT_EQ(one({17}, 0), "f: tensor 't': 68 bytes at offset 0: truncated: the data has 64 bytes");
  EXPECT_EQ(one({1}, 0, 96),
            "f: tensor 't': 4 bytes at offset 96: truncated: the data has 64 bytes");
  EXPECT_EQ(one({1}, 0, UINT64_MAX - 31),
            "f: tensor 't': 4 bytes at offset 18446744073709551584: truncated: the data has 64 "
            "bytes");
  const auto two = [](const std::string& a, const std::string& b) {
    return message(with_data(head(2, 0) + a + b, 64));
  };
  EXPECT_EQ(two(tensor("a", {9}, 0, 0), tensor("b", {8}, 0, 32)),
            "f: tensor 'b': 32 bytes at offset 32: overlap those of 'a'");
  EXPECT_EQ(two(tensor("a", {8}, 0, 32), tensor("a", {8}, 0, 0)), "f: tensor 'a': comes twice");
  EXPECT_EQ(two(tensor("a", {8}, 0, 32), tensor("b", {8}, 0, 0)), "no error");
  EXPECT_EQ(message(head(1, 0)),
            "f: the number of tensors: 1 of them cannot be in the 8 bytes that follow");
}

}  // namespace
}  // namespace lapidary
