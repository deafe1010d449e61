#include "gemma/set_block.h"

#include <limits>

namespace lapidary {

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

}  // namespace lapidary
