#include "io/checkpoint.h"

#include <fmt/format.h>

#include "base/json.h"
#include "io/names.h"
#include "io/quantization.h"
#include "io/test_files.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

// A file of one-byte tensors of these names; each holds the first letter of `value`.
std::string shard(const std::vector<std::string>& tensors, char value = 'v') {
  std::string header = "{";
  for (size_t i = 0; i < tensors.size(); ++i)
    header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}})",
                          i == 0 ? "" : ",", tensors[i], i, i + 1);
  return safetensors_bytes(header + "}", 0) + std::string(tensors.size(), value);
}

std::string index_json(const std::vector<std::pair<std::string, std::string>>& map) {
  std::string text = R"({"metadata":{},"weight_map":{)";
  for (const auto& [tensor, file] : map)
    text += fmt::format(R"({}"{}":"{}")", text.ends_with('{') ? "" : ",", tensor, file);
  return text + "}}";
}

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kFirst = "model-00001-of-00002.safetensors";
constexpr const char* kSecond = "model-00002-of-00002.safetensors";

std::string message(const ScratchFolder& folder) {
  return error_of([&] { Checkpoint::open(folder.path()); }, folder.path().string());
}

TEST(Checkpoint, OneFile) {
  const ScratchFolder folder;
  folder.write("model.safetensors", shard({"b", "a"}));
  folder.write("golden.safetensors", shard({"a"}));  // another file's business
  folder.write("adapters.safetensors", shard({"a"}));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  ASSERT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.total_bytes(), 2);
  EXPECT_EQ(checkpoint.file_of("b"), folder.path() / "model.safetensors");
  EXPECT_EQ(checkpoint.find("c"), nullptr);
}

TEST(Checkpoint, ShardsWithAndWithoutAnIndex) {
  for (const bool with_index : {true, false}) {
    const ScratchFolder folder;
    folder.write(kFirst, shard({"b", "d"}, '1'));
    folder.write(kSecond, shard({"a", "c"}, '2'));
    if (with_index)
      folder.write(kIndex,
                   index_json({{"a", kSecond}, {"b", kFirst}, {"c", kSecond}, {"d", kFirst}}));
    Checkpoint opened = Checkpoint::open(folder.path());
    const Checkpoint checkpoint = std::move(opened);
    ASSERT_EQ(checkpoint.tensors().size(), 4u);
    EXPECT_EQ(checkpoint.files().size(), 2u);
    EXPECT_EQ(checkpoint.total_bytes(), 4);
    for (const auto& [name, file, byte] :
         {std::tuple("a", kSecond, '2'), std::tuple("b", kFirst, '1'),
          std::tuple("c", kSecond, '2'), std::tuple("d", kFirst, '1')}) {
      EXPECT_EQ(checkpoint.file_of(name).filename(), file);
      EXPECT_EQ(checkpoint.find(name)->bytes[0], static_cast<std::byte>(byte));
    }
  }
}

TEST(Checkpoint, TheOnlyFileOfTheFolder) {
  const ScratchFolder folder;
  folder.write("weights.safetensors", shard({"a"}));
  folder.write("adapter_model.safetensors", shard({"x"}));
  EXPECT_NE(Checkpoint::open(folder.path()).find("a"), nullptr);
  folder.write("other.safetensors", shard({"a"}));
  EXPECT_EQ(message(folder),
            ": several sets of weights ('other.safetensors', 'weights.safetensors'), expected "
            "model.safetensors or an index that says which");
}

TEST(Checkpoint, AFolderWithoutWeightsSaysWhatItHolds) {
  const ScratchFolder folder;
  const std::string none =
      ": no weights: found neither model.safetensors nor model.safetensors.index.json nor other "
      ".safetensors files";
  EXPECT_EQ(message(folder), none);
  folder.write("pytorch_model.bin", "");
  EXPECT_EQ(message(folder), none + ", but pytorch_model.bin");
  folder.write("m.gguf", "");
  EXPECT_EQ(message(folder), none + ", but m.gguf");
  try {
    Checkpoint::open(folder.path());
  } catch (const Error& e) {
    EXPECT_EQ(e.hint(), "give the .gguf file itself, or convert it");
  }
  EXPECT_EQ(error_of([&] { Checkpoint::open(folder.path() / "x"); }, folder.path().string()),
            "/x: No such file or directory");
}

TEST(Checkpoint, BrokenSetsAreRefused) {
  const ScratchFolder folder;
  folder.write(kFirst, shard({"a"}));
  EXPECT_EQ(message(folder), fmt::format(": shard '{}' is missing", kSecond));
  folder.write(kSecond, shard({"b", "a"}));
  EXPECT_EQ(message(folder), fmt::format(": tensor 'a' is in both '{}' and '{}'", kFirst, kSecond));
  folder.write(kSecond, shard({"b"}));
  EXPECT_EQ(message(folder), "no error");
  folder.write("model-00001-of-00003.safetensors", shard({"a"}));
  EXPECT_EQ(message(folder),
            fmt::format(": several sets of weights ('{}', 'model-00001-of-00003.safetensors'), "
                        "expected model.safetensors or an index that says which",
                        kFirst));
}

TEST(Checkpoint, BrokenIndexesAreRefused) {
  const ScratchFolder folder;
  const auto with_index = [&](const std::string& text) {
    folder.write(kIndex, text);
    return message(folder);
  };
  const std::string index = fmt::format("/{}: ", kIndex);
  folder.write(kFirst, shard({"a"}));
  EXPECT_EQ(with_index("{"), index + "not valid JSON (stopped at byte 2)");
  EXPECT_EQ(with_index("{}"), index + "field 'weight_map': missing");
  EXPECT_EQ(with_index(index_json({})), index + "field 'weight_map': names no tensors");
  EXPECT_EQ(with_index(index_json({{"a", kFirst}, {"b", kSecond}})),
            fmt::format(": shard '{}' is missing", kSecond));
  for (const char* name : {"../model.safetensors", "/etc/x.safetensors", "sub/x.safetensors",
                           "..safetensors", "x.bin", ""})
    EXPECT_EQ(with_index(index_json({{"a", name}})),
              index + fmt::format("weight_map: field 'a': expected the name of a .safetensors file "
                                  "in the folder, found \"{}\"",
                                  name));
  EXPECT_EQ(with_index(R"({"weight_map":{"a":1}})"),
            index +
                "weight_map: field 'a': expected the name of a .safetensors file in the "
                "folder, found 1");
  folder.write(kSecond, shard({"b"}));
  EXPECT_EQ(with_index(index_json({{"a", kSecond}, {"b", kSecond}})),
            fmt::format(": tensor 'a' is not in '{}', where {} has it", kSecond, kIndex));
  EXPECT_EQ(with_index(index_json({{"a", kFirst}, {"b", kFirst}, {"c", kSecond}})),
            fmt::format(": tensor 'b' is not in '{}', where {} has it", kFirst, kIndex));
  folder.write("model.safetensors", shard({"a"}));
  EXPECT_EQ(with_index(index_json({{"a", kFirst}, {"b", kSecond}})),
            fmt::format(": holds both model.safetensors and an index of 2 shards"));
  EXPECT_EQ(with_index(index_json({{"a", "model.safetensors"}})), "no error");
}

TEST(Checkpoint, FaultsInAShardNameTheShard) {
  const ScratchFolder folder;
  folder.write("model.safetensors", shard({"a"}).substr(0, 20));
  EXPECT_EQ(message(folder),
            "/model.safetensors: truncated: header of 53 bytes, the file has 12 after its length");
}

// The folders that HF transformers and MLX wrote.
TEST(Checkpoint, GoldenFoldersAreRead) {
  const fs::path golden = fs::path(LAPIDARY_SOURCE_DIR) / "tests" / "golden";
  if (!fs::exists(golden)) GTEST_SKIP() << "no golden files";
  int folders = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    SCOPED_TRACE(entry.path().string());
    ++folders;
    const Checkpoint checkpoint = Checkpoint::open(entry.path());
    const NameMap map = map_names(checkpoint.tensors(), checkpoint.folder().string());
    EXPECT_TRUE(map.other.empty());
    const Json json = read_json_file(entry.path() / "config.json");
    const auto spec = parse_quantization(JsonObject(json, "config.json"));
    EXPECT_TRUE(map.text.contains("model.embed_tokens.weight"));
    EXPECT_EQ(spec.has_value(), map.text.contains("model.embed_tokens.scales"));
    EXPECT_EQ(spec.has_value(), entry.path().filename().string().starts_with("mlx-"));
    for (const auto& [name, tensor] : map.text) {
      if (!name.ends_with(".scales")) continue;
      const std::string path = name.substr(0, name.size() - std::string(".scales").size());
      const auto& weight = map.text.at(path + ".weight")->view;
      const auto q = spec->lookup(path);
      ASSERT_TRUE(q.has_value()) << path;
      EXPECT_EQ(weight.shape[1] * 32 / q->bits, tensor->view.shape[1] * q->group_size) << path;
    }
  }
  EXPECT_GT(folders, 0);
}

}  // namespace
}  // namespace lapidary
