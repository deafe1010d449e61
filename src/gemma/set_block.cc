#include "gemma/set_block.h"

#include <limits>

#include "gemma/load.h"

namespace lapidary {

namespace {

constexpr const char* kMaskKey = "lapidary.set_block.mask_token_id";
constexpr const char* kMinKey = "lapidary.set_block.block_min";
constexpr const char* kMaxKey = "lapidary.set_block.block_max";

}  // namespace

OrderedJson to_json(const SetBlockTraining& training) {
  return {{"mask_token_id", training.mask_token_id},
          {"block_min", training.block_min},
          {"block_max", training.block_max}};
}

std::optional<SetBlockTraining> set_block_training(const JsonObject& config) {
  if (!config.has(kSetBlockKey)) return std::nullopt;
  const JsonObject object = config.object(kSetBlockKey);
  const int64_t mask = object.integer("mask_token_id");
  if (mask < 0 || mask > std::numeric_limits<Token>::max())
    object.fail_field("mask_token_id", "is no token");
  const SetBlockTraining training{static_cast<Token>(mask), object.integer("block_min"),
                                  object.integer("block_max")};
  if (training.block_min < 1 || training.block_max < training.block_min)
    object.fail_field("block_max", "is no size of blocks from block_min on");
  return training;
}

GgufMetadata to_gguf(const SetBlockTraining& training) {
  return {{kMaskKey, static_cast<uint32_t>(training.mask_token_id)},
          {kMinKey, static_cast<uint32_t>(training.block_min)},
          {kMaxKey, static_cast<uint32_t>(training.block_max)}};
}

std::optional<SetBlockTraining> set_block_training(const GgufKeys& keys) {
  if (!keys.has(kMaskKey)) return std::nullopt;
  constexpr int64_t kMost = std::numeric_limits<Token>::max();
  SetBlockTraining training;
  training.mask_token_id = static_cast<Token>(keys.integer(kMaskKey, 0, kMost));
  training.block_min = keys.integer(kMinKey, 1, kMost);
  training.block_max = keys.integer(kMaxKey, training.block_min, kMost);
  return training;
}

std::optional<SetBlockTraining> set_block_training(const Model& model) {
  if (model.gguf)
    return set_block_training(GgufKeys(model.gguf->contents(), model.gguf->path().string()));
  const std::string file = (model.checkpoint.folder() / "config.json").string();
  const Json config = read_json_file(file);
  return set_block_training(JsonObject(config, file));
}

}  // namespace lapidary
