// What training on set blocks (arXiv 2509.04185) says of itself: the object "set_block" in a
// model's config.json or in an adapter's configuration, and in GGUF files of either the keys
// lapidary.set_block.*, which other programs pass over. Without it a model can decode one token at
// a time alone.
#pragma once

#include <cstdint>
#include <optional>

#include "lapidary/token.h"

#include "base/json.h"
#include "io/gguf_keys.h"

namespace lapidary {

struct Model;

struct SetBlockTraining {
  Token mask_token_id = 0;  // that stands for a token which is not known yet
  // Tokens of the blocks that it was trained on, at least and at most.
  int64_t block_min = 0, block_max = 0;

  friend bool operator==(const SetBlockTraining&, const SetBlockTraining&) = default;
};

inline constexpr const char* kSetBlockKey = "set_block";

OrderedJson to_json(const SetBlockTraining& training);
// Of a configuration; nothing where it does not say. Throws Error{kInput} naming the field.
std::optional<SetBlockTraining> set_block_training(const JsonObject& config);

GgufMetadata to_gguf(const SetBlockTraining& training);
// Likewise, naming the key.
std::optional<SetBlockTraining> set_block_training(const GgufKeys& keys);

// Of a model's folder or file, which is read for it.
std::optional<SetBlockTraining> set_block_training(const Model& model);

}  // namespace lapidary
