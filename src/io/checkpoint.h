// The weights of a model folder, whatever number of files they are spread over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "io/safetensors.h"

namespace lapidary {

// Owns the mapped files; views are valid while it lives, moved or not. Tensors carry the names they
// have on disk (names.h maps those to the text model's) and may be unaligned (safetensors.h).
class Checkpoint {
 public:
  // What is looked for, in this order:
  //   1. model.safetensors;
  //   2. model.safetensors.index.json and the shards that its weight_map names;
  //   3. NAME-00001-of-0000N.safetensors, all N of one NAME;
  //   4. the only *.safetensors file of the folder (adapters do not count).
  // Throws Error{kInput}: nothing of that (files of other formats are named, with a hint), more
  // than one candidate, a shard missing or with a path in its name, a tensor in two shards or not
  // in the shard that the index names, and what parse_safetensors throws.
  static Checkpoint open(const std::filesystem::path& folder);

  // nullptr when there is none.
  const TensorView* find(std::string_view name) const;

  const std::vector<NamedTensor>& tensors() const { return tensors_; }  // in name order
  int64_t total_bytes() const { return total_bytes_; }                  // of the tensors' data

  // The file that holds a tensor; `name` must be that of one.
  const std::filesystem::path& file_of(std::string_view name) const;

  const std::filesystem::path& folder() const { return folder_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }  // in name order
  void release_pages() const;                                           // mapped_file.h

 private:
  void index_tensors();
  size_t position_of(std::string_view name) const;  // tensors_.size() when there is none

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::vector<NamedTensor> tensors_;
  std::vector<uint32_t> file_of_tensor_;  // an index into files_ for each of tensors_
  int64_t total_bytes_ = 0;
};

}  // namespace lapidary
