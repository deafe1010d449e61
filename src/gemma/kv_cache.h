// The keys and values of one timeline, as a value: append, trim, copy, save.
//
// Each layer holds blocks of kKvBlock positions. A full layer keeps all of them; a sliding layer
// keeps those that its window can still see, plus one block so that a few tokens can be taken back.
// Copying a cache shares its blocks; who writes to a shared block first copies that block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "lapidary/config.h"
#include "lapidary/kv_type.h"

#include "gemma/seen_keys.h"
#include "kernels/kernels.h"

namespace lapidary {

// Memory for blocks of one size, given out and taken back; safe to use from several threads.
// Blocks keep their pool alive.
class KvBlockPool : public std::enable_shared_from_this<KvBlockPool> {
 public:
  explicit KvBlockPool(int64_t block_bytes) : block_bytes_(block_bytes) {}
  ~KvBlockPool();

  std::shared_ptr<std::byte> take();  // contents are whatever they are
  int64_t block_bytes() const { return block_bytes_; }

 private:
  int64_t block_bytes_;
  std::mutex mutex_;
  std::vector<std::byte*> free_;  // guarded by mutex_; has room for every block there is
  size_t blocks_ = 0;             // that exist, guarded by mutex_
};

class KvCache {
 public:
  // The pool's block size must be block_bytes(config, type).
  KvCache(const Config& config, KvType type, std::shared_ptr<KvBlockPool> pool);

  // A block holds K [kv_heads, kKvBlock] of rows (kernels/kv_rows.h), then V of the same shape.
  static int64_t block_bytes(const Config& config, KvType type);

  // Positions that are complete in every layer.
  int64_t length() const { return length_; }
  KvType type() const { return type_; }
  // Bytes of the blocks held, shared ones included.
  int64_t bytes() const;

  // Stores keys and values, f32 [n, kv_heads * head_dim] each, at positions length() ... in
  // `layer`.
  void append(int layer, const float* k, const float* v, int64_t n);
  // After every layer has its n, or more: the first n of these positions are part of the timeline
  // now, the others are gone, and sliding layers let go of what no later query sees.
  void advance(int64_t n);
  // The same for one layer, before advance(): a layer that is done frees memory for the next.
  void release_unseen(int layer, int64_t new_length);

  // Shortens to `length` positions if every sliding layer still has what its window sees from
  // there; otherwise changes nothing and returns false.
  bool trim(int64_t length);

  // For attention: blocks()[b - first_block()] is block b of the layer.
  std::span<const std::byte* const> blocks(int layer) const;
  int64_t first_block(int layer) const { return layers_[static_cast<size_t>(layer)].first_block; }
  // What of the cache a layer's queries see.
  const SeenKeys& seen(int layer) const { return layers_[static_cast<size_t>(layer)].seen; }
  int64_t k_offset(int kv_head) const { return kv_head * head_bytes_; }
  int64_t v_offset(int kv_head) const { return (kv_heads_ + kv_head) * head_bytes_; }

  // Replaces the contents by `length` positions, of which a layer's blocks start at
  // first_blocks[layer]; write them through writable_block().
  void reset(int64_t length, std::span<const int64_t> first_blocks);
  std::span<std::byte> writable_block(int layer, int64_t block);

 private:
  struct Layer {
    SeenKeys seen;            // by its queries
    int64_t first_block = 0;  // index of blocks[0]
    std::vector<std::shared_ptr<std::byte>> blocks;
    std::vector<const std::byte*> data;  // blocks[i].get(), for the kernels
  };
  std::byte* writable(Layer& layer, int64_t block);
  void pop_front(Layer& layer, int64_t count);
  void drop_beyond_end();

  int64_t kv_heads_;
  int head_dim_;
  int64_t head_bytes_;  // of one head's keys in a block
  KvType type_;
  int64_t length_ = 0;
  std::shared_ptr<KvBlockPool> pool_;
  std::vector<Layer> layers_;
};

// The positions of a cache that one of several timelines in it has, in order. Such a cache keeps
// everything in every layer: full_attention_everywhere().
class CacheShare {
 public:
  int64_t length() const { return length_; }
  std::span<const std::pair<int64_t, int64_t>> ranges() const { return ranges_; }  // [first, last)

  void add(int64_t first, int64_t last) {
    length_ += last - first;
    if (!ranges_.empty() && ranges_.back().second == first)
      ranges_.back().second = last;
    else
      ranges_.emplace_back(first, last);
  }

 private:
  int64_t length_ = 0;
  std::vector<std::pair<int64_t, int64_t>> ranges_;
};
Config full_attention_everywhere(Config config);

// The first block that a query at position `length` of `layer` can see keys in.
int64_t first_needed_block(const Config& config, int layer, int64_t length);

// Bytes a cache of `context` positions holds at most, between steps.
int64_t kv_cache_bytes(const Config& config, KvType type, int64_t context);

}  // namespace lapidary
