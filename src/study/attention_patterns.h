// The weights that attention gives, computed beside the model from the queries and keys that pass.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lapidary/config.h"
#include "lapidary/kv_type.h"
#include "lapidary/tap.h"

#include "base/thread_pool.h"

namespace lapidary {

// Consecutive queries of one layer, all heads, with all the keys that any of them sees. A query's
// weights on what it does not see are 0.
struct PatternBlock {
  int layer = 0;
  int64_t first_query = 0;  // a multiple of kPatternQueries, or where the chunk or the look begins
  int64_t queries = 0;
  int64_t first_key = 0;
  int64_t keys = 0;
  int64_t heads = 0;
  const float* weights = nullptr;  // [heads, queries, keys]

  const float* row(int64_t head, int64_t query) const {
    return weights + (head * queries + query) * keys;
  }
};
constexpr int64_t kPatternQueries = 64;

class AttentionPatterns {
 public:
  // Called for the blocks of a chunk by several threads at once, in any order; `slot` numbers them
  // in the order of the queries, from 0 in each chunk.
  using OnBlock = std::function<void(const PatternBlock& block, int64_t slot)>;
  // When all blocks of a chunk and layer have been seen.
  using OnChunk = std::function<void(int layer, int64_t slots)>;

  // `type` is that of the engine's cache, to whose precision keys are rounded. Memory: the rotated
  // keys of all layers in f32, of sliding ones as far back as the window, and for each thread a
  // block of weights. Queries before `first_query` are not weighed.
  AttentionPatterns(const Config& config, KvType type, int threads, OnBlock on_block,
                    OnChunk on_chunk = {}, int64_t first_query = 0);

  // For one session, from its beginning on. Refers to this object.
  Tap tap();

 private:
  // The keys of a layer, as far back as its queries see.
  struct Keys {
    int64_t first = 0;          // position
    std::vector<float> values;  // [positions, KV * d]
  };
  void take_keys(const Activation& a);
  void weigh_chunk(int layer, int64_t position);
  void weigh(const PatternBlock& block, float* weights, float* scratch) const;

  Config config_;
  KvType type_;
  ThreadPool pool_;
  OnBlock on_block_;
  OnChunk on_chunk_;
  int64_t first_query_;
  std::vector<Keys> keys_;      // by layer
  std::vector<float> queries_;  // of the chunk, [rows, H * d]
  int64_t rows_ = 0;
  std::vector<std::vector<float>> memory_;  // by thread
};

}  // namespace lapidary
