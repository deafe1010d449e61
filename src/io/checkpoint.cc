#include "io/checkpoint.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/fail.h"
#include "base/json.h"
#include "io/printable.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kWhole = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// The regular files of a folder, by name.
std::set<std::string> list_files(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) names.insert(it->path().filename().string());
  }
  if (error) fail("{}: {}", folder.string(), error.message());
  return names;
}

// NAME-00002-of-00005.safetensors
struct ShardName {
  std::string stem;
  int number = 0;
  int count = 0;
};

std::optional<ShardName> parse_shard_name(std::string_view file) {
  constexpr std::string_view kEnd = ".safetensors";
  constexpr size_t kTail = std::string_view("-00001-of-00002").size();
  if (!file.ends_with(kEnd)) return std::nullopt;
  file.remove_suffix(kEnd.size());
  if (file.size() <= kTail) return std::nullopt;
  const std::string_view tail = file.substr(file.size() - kTail);
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-") return std::nullopt;
  ShardName name{std::string(file.substr(0, file.size() - kTail)), 0, 0};
  for (size_t i = 0; i < 5; ++i) {
    const char n = tail[1 + i];
    const char c = tail[10 + i];
    if (n < '0' || n > '9' || c < '0' || c > '9') return std::nullopt;
    name.number = name.number * 10 + (n - '0');
    name.count = name.count * 10 + (c - '0');
  }
  return name;
}

std::string shard_name(const ShardName& shard, int number) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", shard.stem, number, shard.count);
}

bool is_adapter(std::string_view file) {
  return file.starts_with("adapter_model") || file.starts_with("adapters.") ||
         file.ends_with("_adapters.safetensors");
}

[[noreturn]] void fail_no_weights(const fs::path& folder, const std::set<std::string>& files) {
  std::string found;
  for (const std::string& file : files)
    if (found.empty() && (file.ends_with(".gguf") || file.ends_with(".bin") ||
                          file.ends_with(".pt") || file.ends_with(".pth")))
      found = file;
  const std::string message = fmt::format(
      "{}: no weights: found neither {} nor {} nor other .safetensors files{}", folder.string(),
      kWhole, kIndex, found.empty() ? "" : fmt::format(", but {}", printable(found)));
  if (found.ends_with(".gguf"))
    throw Error(ErrorKind::kInput, message, "give the .gguf file itself, or convert it");
  if (!found.empty())
    throw Error(ErrorKind::kInput, message,
                "convert it to safetensors, or take a revision of the model that has them");
  throw Error(ErrorKind::kInput, message, "was the download complete?");
}

// All shards of the one set that the folder holds, or its only file.
std::vector<std::string> files_without_index(const fs::path& folder,
                                             const std::set<std::string>& files) {
  std::map<std::pair<std::string, int>, ShardName> sets;
  std::vector<std::string> singles;
  for (const std::string& file : files) {
    if (!file.ends_with(".safetensors") || is_adapter(file)) continue;
    if (const auto shard = parse_shard_name(file))
      sets.emplace(std::pair(shard->stem, shard->count), *shard);
    else
      singles.push_back(file);
  }
  if (sets.empty() && singles.empty()) fail_no_weights(folder, files);
  if (sets.empty() && singles.size() == 1) return singles;
  if (sets.size() != 1) {
    const auto first = singles.empty() ? shard_name(sets.begin()->second, 1) : singles.front();
    const auto last =
        singles.size() > 1 ? singles.back() : shard_name(std::prev(sets.end())->second, 1);
    fail("{}: several sets of weights ('{}', '{}'), expected {} or an index that says which",
         folder.string(), printable(first), printable(last), kWhole);
  }
  const ShardName& shard = sets.begin()->second;
  if (shard.count == 0)
    fail("{}: '{}': of 0 files", folder.string(), shard_name(shard, shard.number));
  std::vector<std::string> names;
  for (int i = 1; i <= shard.count; ++i) names.push_back(shard_name(shard, i));
  return names;
}

using WeightMap = std::map<std::string, std::string>;  // tensor -> file name

WeightMap read_weight_map(const fs::path& path) {
  const Json json = read_json_file(path);
  const JsonObject index(json, path.string());
  const JsonObject block = index.object("weight_map");
  WeightMap map;
  for (const auto& [tensor, value] : block.json().items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : "";
    // Only names of files beside the index: it may not reach anywhere else on the disk.
    if (!file.ends_with(".safetensors") || file.find_first_of("/\\") != std::string::npos ||
        file.find('\0') != std::string::npos || file.starts_with(".."))
      block.fail_field(
          printable(tensor),
          fmt::format("expected the name of a .safetensors file in the folder, found {}",
                      shown_json(value)));
    map.emplace(tensor, file);
  }
  if (map.empty()) index.fail_field("weight_map", "names no tensors");
  return map;
}

std::set<std::string> files_of(const WeightMap& map) {
  std::set<std::string> files;
  for (const auto& [tensor, file] : map) files.insert(file);
  return files;
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const std::set<std::string> present = list_files(folder);
  WeightMap map;
  if (present.contains(kIndex)) map = read_weight_map(folder / kIndex);

  std::vector<std::string> names;
  if (!map.empty()) {
    const std::set<std::string> shards = files_of(map);
    names.assign(shards.begin(), shards.end());
    if (present.contains(kWhole) && !shards.contains(kWhole))
      throw Error(ErrorKind::kInput,
                  fmt::format("{}: holds both {} and an index of {} shards", folder.string(),
                              kWhole, shards.size()),
                  "remove the one that is not meant");
  } else if (present.contains(kWhole)) {
    names = {kWhole};
  } else {
    names = files_without_index(folder, present);
  }
  for (const std::string& name : names) {
    if (!present.contains(name))
      fail("{}: shard '{}' is missing", folder.string(), printable(name));
    checkpoint.files_.push_back(SafetensorsFile::open(folder / name));
  }
  checkpoint.index_tensors();
  for (const auto& [tensor, file] : map) {
    const size_t at = checkpoint.position_of(tensor);
    if (at == checkpoint.tensors_.size() || checkpoint.file_of(tensor).filename() != file)
      fail("{}: tensor '{}' is not in '{}', where {} has it", folder.string(), printable(tensor),
           printable(file), kIndex);
  }
  return checkpoint;
}

void Checkpoint::index_tensors() {
  std::vector<std::pair<const NamedTensor*, uint32_t>> all;
  for (uint32_t i = 0; i < files_.size(); ++i)
    for (const NamedTensor& tensor : files_[i].tensors()) all.emplace_back(&tensor, i);
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first->name < b.first->name; });
  for (const auto& [tensor, file] : all) {
    if (!tensors_.empty() && tensors_.back().name == tensor->name)
      fail("{}: tensor '{}' is in both '{}' and '{}'", folder_.string(), printable(tensor->name),
           printable(files_[file_of_tensor_.back()].path().filename().string()),
           printable(files_[file].path().filename().string()));
    tensors_.push_back(*tensor);
    file_of_tensor_.push_back(file);
    total_bytes_ += static_cast<int64_t>(tensor->view.bytes.size());
  }
}

size_t Checkpoint::position_of(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const NamedTensor& t, std::string_view n) { return t.name < n; });
  if (it == tensors_.end() || it->name != name) return tensors_.size();
  return static_cast<size_t>(it - tensors_.begin());
}

void Checkpoint::release_pages() const {
  for (const SafetensorsFile& file : files_) file.release_pages();
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const size_t at = position_of(name);
  return at < tensors_.size() ? &tensors_[at].view : nullptr;
}

const fs::path& Checkpoint::file_of(std::string_view name) const {
  const size_t at = position_of(name);
  LAPIDARY_CHECK(at < tensors_.size(), std::string(name));
  return files_[file_of_tensor_[at]].path();
}

}  // namespace lapidary
