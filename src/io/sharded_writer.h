// The weights of a model folder as one stream, cut into files of a bounded size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/safetensors.h"

namespace lapidary {

// Writes model.safetensors, or model-00001-of-0000N.safetensors and an index where that would be
// larger than a shard may be. A file is complete once the next one begins.
class ShardedWriter {
 public:
  // Each group of tensors stays in one file; a group larger than `shard_bytes` has a file of its
  // own. Throws as SafetensorsWriter, and Error{kResource} when the disk has no room for the whole.
  ShardedWriter(std::filesystem::path folder, std::vector<std::vector<TensorDeclaration>> groups,
                Metadata metadata, int64_t shard_bytes);

  // The next bytes of the data, in the order of the groups and of the tensors in each; a piece must
  // not span groups. Throws Error{kResource}.
  void write(std::span<const std::byte> bytes);
  // Completes the last file and writes the index.
  void finish();

  int64_t total_bytes() const { return total_bytes_; }  // of the tensors' data
  int64_t written_bytes() const { return written_bytes_; }

 private:
  struct Shard {
    std::string name;
    std::vector<TensorDeclaration> tensors;
    int64_t bytes = 0;
  };
  void open_next();
  void write_index() const;

  std::filesystem::path folder_;
  Metadata metadata_;
  std::vector<Shard> shards_;
  size_t next_ = 0;  // the shard to open after the open one
  std::unique_ptr<SafetensorsWriter> open_;
  int64_t total_bytes_ = 0;
  int64_t written_bytes_ = 0;
};

}  // namespace lapidary
