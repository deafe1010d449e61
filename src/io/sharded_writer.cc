#include "io/sharded_writer.h"

#include "base/fail.h"
#include "base/json.h"
#include "io/output_file.h"

namespace lapidary {

ShardedWriter::ShardedWriter(std::filesystem::path folder,
                             std::vector<std::vector<TensorDeclaration>> groups, Metadata metadata,
                             int64_t shard_bytes)
    : folder_(std::move(folder)), metadata_(std::move(metadata)) {
  for (std::vector<TensorDeclaration>& group : groups) {
    int64_t bytes = 0;
    for (const TensorDeclaration& tensor : group) bytes += tensor.byte_size();
    if (shards_.empty() || (shards_.back().bytes > 0 && shards_.back().bytes + bytes > shard_bytes))
      shards_.emplace_back();
    shards_.back().bytes += bytes;
    total_bytes_ += bytes;
    std::move(group.begin(), group.end(), std::back_inserter(shards_.back().tensors));
  }
  for (size_t i = 0; i < shards_.size(); ++i)
    shards_[i].name = shards_.size() == 1
                          ? "model.safetensors"
                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
  std::error_code unknown;
  const auto space = std::filesystem::space(folder_, unknown);
  if (!unknown && space.available < static_cast<uintmax_t>(total_bytes_))
    fail_resource("{}: {} bytes to write, {} are free", folder_.string(), total_bytes_,
                  space.available);
  open_next();
}

void ShardedWriter::open_next() {
  if (open_) open_->finish();
  open_ = std::make_unique<SafetensorsWriter>(folder_ / shards_[next_].name, shards_[next_].tensors,
                                              metadata_);
  ++next_;
}

void ShardedWriter::write(std::span<const std::byte> bytes) {
  if (open_->written_bytes() == open_->total_bytes() && !bytes.empty()) open_next();
  open_->write(bytes);
  written_bytes_ += std::ssize(bytes);
}

void ShardedWriter::finish() {
  open_->finish();
  LAPIDARY_CHECK(next_ == shards_.size(), "groups are missing");
  if (shards_.size() > 1) write_index();
}

void ShardedWriter::write_index() const {
  Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", Json::object()}};
  for (const Shard& shard : shards_)
    for (const TensorDeclaration& tensor : shard.tensors)
      index["weight_map"][tensor.name] = shard.name;
  write_file(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace lapidary
