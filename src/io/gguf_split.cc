#include "io/gguf_split.h"

#include <unordered_map>

#include "base/fail.h"
#include "io/gguf_keys.h"
#include "io/printable.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kNumber = "split.no";  // from 0
constexpr const char* kCount = "split.count";
constexpr const char* kTensors = "split.tensors.count";
constexpr int64_t kMostParts = 99999;  // that five digits can name

std::string ending(int64_t number, int64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

// The part `number` beside `file`, which is `own`.
fs::path path_of(const fs::path& file, int64_t own, int64_t number, int64_t count) {
  const std::string name = file.filename().string(), expected = ending(own, count);
  if (!name.ends_with(expected))
    fail("{}: part {} of {} of a model, expected a name that ends in {}", file.string(), own + 1,
         count, expected);
  return file.parent_path() /
         (name.substr(0, name.size() - expected.size()) + ending(number, count));
}

void check_is_part(const GgufKeys& keys, int64_t number, int64_t count) {
  for (const auto& [key, expected] : {std::pair{kNumber, number}, {kCount, count}}) {
    const int64_t found = keys.integer(key, 0, kMostParts);
    if (found != expected)
      keys.fail_key(key, fmt::format("expected {}, found {}", expected, found));
  }
}

}  // namespace

void add_split_parts(std::vector<MappedFile>& files, GgufContents& contents) {
  const fs::path first = files.front().path();
  const GgufKeys keys(contents, first.string());
  const int64_t count = keys.find_integer(kCount, 0, kMostParts).value_or(1);
  if (count <= 1) return;
  const int64_t own = keys.integer(kNumber, 0, count - 1);
  if (own != 0)
    throw Error(ErrorKind::kInput,
                fmt::format("{}: part {} of {} of a model", first.string(), own + 1, count),
                fmt::format("give the first: {}", path_of(first, own, 0, count).string()));
  const int64_t tensors = keys.integer(kTensors, 0, INT32_MAX);

  std::unordered_map<std::string, std::string> part_of;  // tensor to file
  for (const GgufTensor& tensor : contents.tensors) part_of.emplace(tensor.name, first.string());
  for (int64_t number = 1; number < count; ++number) {
    const fs::path path = path_of(first, own, number, count);
    std::error_code error;
    if (!fs::exists(path, error) && !error)
      fail("{}: missing: part {} of {} of {}", path.string(), number + 1, count, first.string());
    files.push_back(MappedFile::open(path));
    GgufContents part = parse_gguf(files.back().bytes(), path.string());
    check_is_part(GgufKeys(part, path.string()), number, count);
    for (GgufTensor& tensor : part.tensors) {
      const auto [other, is_new] = part_of.emplace(tensor.name, path.string());
      if (!is_new)
        fail("{}: tensor '{}': is in {} too", path.string(), printable(tensor.name), other->second);
      contents.tensors.push_back(std::move(tensor));
    }
  }
  if (std::ssize(contents.tensors) != tensors)
    fail("{}: key '{}': {}, but the {} parts have {}", first.string(), kTensors, tensors, count,
         contents.tensors.size());
}

}  // namespace lapidary
