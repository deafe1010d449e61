#include <signal.h>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "io/safetensors.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

std::string bytes_of(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()};
}

// Lowers the largest size a file may have; a write beyond it fails instead of killing the process.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    old_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit before_{};
  sighandler_t old_handler_;
};

const std::vector<TensorDeclaration> kMixed = {
    {"bytes", DType::kU8, {3}},     {"zero", DType::kF32, {0, 7}},
    {"half", DType::kBF16, {3, 1}}, {"\"odd\" name\n", DType::kI64, {}},
    {"float", DType::kF32, {2}},    {"word", DType::kU32, {1}}};
const std::string kMixedData = "abcHALFhaINTEGER8float321WORD";

TEST(SafetensorsWriter, WhatIsWrittenIsReadBack) {
  const ScratchFolder folder;
  for (const size_t piece : {size_t{1}, size_t{5}, kMixedData.size()}) {
    SafetensorsWriter writer(folder.path() / "t.safetensors", kMixed, {{"format", "pt"}});
    EXPECT_EQ(writer.total_bytes(), static_cast<int64_t>(kMixedData.size()));
    for (size_t at = 0; at < kMixedData.size(); at += piece)
      writer.write(as_span(kMixedData).subspan(at, std::min(piece, kMixedData.size() - at)));
    EXPECT_EQ(writer.written_bytes(), writer.total_bytes());
    writer.finish();

    const SafetensorsFile file = SafetensorsFile::open(folder.path() / "t.safetensors");
    EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}}));
    ASSERT_EQ(file.tensors().size(), kMixed.size());
    EXPECT_EQ(bytes_of(*file.find("bytes")), "abc");
    EXPECT_EQ(bytes_of(*file.find("half")), "HALFha");
    EXPECT_EQ(bytes_of(*file.find("\"odd\" name\n")), "INTEGER8");
    EXPECT_EQ(bytes_of(*file.find("float")), "float321");
    EXPECT_EQ(bytes_of(*file.find("word")), "WORD");
    EXPECT_EQ(file.find("zero")->shape, (std::vector<int64_t>{0, 7}));
    for (const NamedTensor& t : file.tensors()) EXPECT_TRUE(is_aligned(t.view)) << t.name;
  }
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"t.safetensors"}));
}

// Byte for byte what safetensors.numpy.save_file of the Python package 0.8.0 writes.
TEST(SafetensorsWriter, LayoutIsTheReferences) {
  const ScratchFolder folder;
  SafetensorsWriter writer(
      folder.path() / "t",
      {{"b", DType::kU8, {1}}, {"c", DType::kF32, {1}}, {"a", DType::kF32, {1}}});
  writer.write(as_span("1ccccaaaa"));
  writer.finish();
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                             R"("c":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},)"
                             R"("b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})";
  const std::string padding((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(folder.read("t"),
            length_bytes(header.size() + padding.size()) + header + padding + "aaaacccc1");
}

TEST(SafetensorsWriter, NothingToWriteIsAFileToo) {
  const ScratchFolder folder;
  SafetensorsWriter writer(folder.path() / "t", {}, {});
  writer.finish();
  EXPECT_TRUE(SafetensorsFile::open(folder.path() / "t").tensors().empty());
}

TEST(SafetensorsWriter, WithoutFinishTheOldFileStays) {
  const ScratchFolder folder;
  folder.write("t", "old");
  {
    SafetensorsWriter writer(folder.path() / "t", {{"a", DType::kU8, {2}}});
    writer.write(as_span("x"));
    EXPECT_EQ(folder.names().size(), 2u);
    EXPECT_EQ(folder.read("t"), "old");
  }
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"t"}));
  EXPECT_EQ(folder.read("t"), "old");
}

TEST(SafetensorsWriter, AKilledWriterLeavesNoTarget) {
  const ScratchFolder folder;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    SafetensorsWriter writer(folder.path() / "t", {{"a", DType::kU8, {2}}});
    writer.write(as_span("x"));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "t"));
}

TEST(SafetensorsWriter, AFullDiskIsReportedAndLeavesNothing) {
  const ScratchFolder folder;
  const std::vector<TensorDeclaration> large = {{"a", DType::kU8, {1 << 20}}};
  {
    const FileSizeLimit limit(64 << 10);
    EXPECT_EQ(
        error_of([&] { SafetensorsWriter(folder.path() / "t", large); }, folder.path().string()),
        "/t: cannot write 1048656 bytes: File too large");
  }
  {  // room that was there when the file was made and is not when the data comes
    SafetensorsWriter writer(folder.path() / "t", large);
    const FileSizeLimit limit(64 << 10);
    const std::string data(1 << 20, 'x');
    EXPECT_EQ(error_of([&] { writer.write(as_span(data)); }, folder.path().string()),
              "/t: cannot write: File too large");
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(SafetensorsWriter, ReportsWhereItCannotWrite) {
  const ScratchFolder folder;
  try {
    SafetensorsWriter(folder.path() / "none" / "t", {});
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    EXPECT_EQ(e.what(), (folder.path() / "none" / "t").string() +
                            ": cannot create: No such file or directory");
  }
  std::filesystem::create_directories(folder.path() / "t" / "x");  // rename cannot replace this
  SafetensorsWriter writer(folder.path() / "t", {});
  EXPECT_EQ(error_of([&] { writer.finish(); }, folder.path().string()),
            "/t: cannot create: Is a directory");
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"t"}));
}

TEST(SafetensorsWriter, RefusesDeclarationsThatCannotBe) {
  const ScratchFolder folder;
  const auto message = [&](const std::vector<TensorDeclaration>& declarations) {
    return error_of([&] { SafetensorsWriter(folder.path() / "t", declarations); },
                    folder.path().string());
  };
  EXPECT_EQ(message({{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}),
            "/t: tensor 'a': declared twice");
  EXPECT_EQ(message({{"a", DType::kU8, {-1}}}), "/t: tensor 'a': shape [-1] cannot be");
  EXPECT_EQ(message({{"a", DType::kF32, {INT64_MAX}}}),
            "/t: tensor 'a': shape [9223372036854775807] cannot be");
  EXPECT_EQ(message({{"a", DType::kU8, {INT64_MAX}}, {"b", DType::kU8, {1}}}),
            "/t: tensor 'b': more than 2^63 bytes in all");
  EXPECT_EQ(message({{"__metadata__", DType::kU8, {1}}}),
            "/t: tensor '__metadata__': the format keeps this name for itself");
  EXPECT_EQ(message({{"\xff", DType::kU8, {1}}}), "/t: a tensor's name or metadata is not UTF-8");
  EXPECT_TRUE(folder.names().empty());
}

TEST(SafetensorsWriterDeathTest, MisuseIsCaught) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const ScratchFolder folder;
  SafetensorsWriter writer(folder.path() / "t", {{"a", DType::kU8, {2}}});
  EXPECT_DEATH(writer.write(as_span("xyz")), "3 bytes written, 2 of 2 were left");
  EXPECT_DEATH(writer.finish(), "0 of 2 declared bytes written");
}

}  // namespace
}  // namespace lapidary
