// room: study
// What a model is made of: its tensors layer by layer, and what a token costs in them. From the
// config and the headers of the files; nothing is read of the weights but norms.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lapidary/config.h"
#include "lapidary/kv_type.h"

namespace lapidary {

struct TensorFigures {
  std::string name;    // "self_attn.q_proj" of a layer; "model.embed_tokens"
  int64_t rows = 0;    // what it makes
  int64_t cols = 0;    // what it takes; 0: a norm's vector of `rows`
  std::string format;  // "affine 4-bit, groups of 64"; of norms "F32 in memory"
  int64_t bytes = 0;   // as it is stored; of norms as they are held
  int64_t parameters() const { return cols > 0 ? rows * cols : rows; }
};

struct LayerArchitecture {
  int layer = 0;
  bool sliding = false;
  int64_t window = 0;  // keys that a query sees at most; 0: all before it
  RopeParameters rope = {};
  std::vector<TensorFigures> tensors = {};  // in the order of a token's way
  int64_t parameters() const;
  int64_t bytes() const;
};

struct Architecture {
  std::string model;  // the last part of its path
  Config config = {};
  TensorFigures embedding = {};
  std::vector<LayerArchitecture> layers = {};
  TensorFigures norm = {};
  TensorFigures head = {};  // the embedding again where the two are tied
  int64_t parameters() const;
  int64_t bytes() const;

  // Of the token that makes a context `context` long. Operations, as docs/performance.md counts
  // them: a multiplication and an addition are two; products and attention, not norms.
  int64_t layer_flops(const LayerArchitecture& layer, int64_t context) const;
  int64_t flops(int64_t context) const;
  // Keys that it sees in the layer.
  int64_t keys(const LayerArchitecture& layer, int64_t context) const;
  // The least that must be read for it: all but the embedding, and the keys and values it sees.
  int64_t bytes_read(KvType type, int64_t context) const;
  // Of the cache then.
  int64_t kv_bytes(KvType type, int64_t context) const;
};

// Throws Error{kInput} as Engine::load does for what is wrong with the model.
Architecture study_architecture(const std::filesystem::path& model);

}  // namespace lapidary
