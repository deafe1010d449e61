#include "gemma/kv_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "lapidary/error.h"

#include "kernels/kv_rows.h"

namespace lapidary {

namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

KvBlockPool::~KvBlockPool() {
  for (std::byte* block : free_) ::operator delete(block, kAlignment);
}

std::shared_ptr<std::byte> KvBlockPool::take() {
  std::byte* block = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      block = free_.back();
      free_.pop_back();
    } else if (++blocks_ > free_.capacity()) {
      free_.reserve(2 * blocks_);  // now, so that giving a block back never fails
    }
  }
  if (block == nullptr)
    block = static_cast<std::byte*>(::operator new(static_cast<size_t>(block_bytes_), kAlignment));
  return {block, [pool = shared_from_this()](std::byte* returned) {
            const std::lock_guard lock(pool->mutex_);
            pool->free_.push_back(returned);
          }};
}

KvCache::KvCache(const Config& config, KvType type, std::shared_ptr<KvBlockPool> pool)
    : kv_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      head_bytes_(kKvBlock * kv_row_bytes(type, head_dim_)),
      type_(type),
      pool_(std::move(pool)),
      layers_(static_cast<size_t>(config.num_hidden_layers)) {
  LAPIDARY_CHECK(pool_->block_bytes() == block_bytes(config, type), "the pool's block size");
  for (int i = 0; i < config.num_hidden_layers; ++i)
    layers_[static_cast<size_t>(i)].seen = SeenKeys(config, i);
}

int64_t KvCache::block_bytes(const Config& config, KvType type) {
  return 2 * int64_t{config.num_key_value_heads} * kKvBlock * kv_row_bytes(type, config.head_dim);
}

int64_t KvCache::bytes() const {
  int64_t blocks = 0;
  for (const Layer& layer : layers_) blocks += std::ssize(layer.blocks);
  return blocks * pool_->block_bytes();
}

std::byte* KvCache::writable(Layer& layer, int64_t block) {
  const int64_t i = block - layer.first_block;
  LAPIDARY_CHECK(i >= 0 && i <= std::ssize(layer.blocks), "blocks are written in order");
  const auto index = static_cast<size_t>(i);
  if (index == layer.blocks.size()) {
    layer.blocks.push_back(pool_->take());
    layer.data.push_back(layer.blocks.back().get());
  } else if (layer.blocks[index].use_count() > 1) {
    auto copy = pool_->take();
    std::memcpy(copy.get(), layer.blocks[index].get(), static_cast<size_t>(pool_->block_bytes()));
    layer.blocks[index] = std::move(copy);
    layer.data[index] = layer.blocks[index].get();
  }
  return layer.blocks[index].get();
}

void KvCache::append(int layer_index, const float* k, const float* v, int64_t n) {
  Layer& layer = layers_[static_cast<size_t>(layer_index)];
  const int64_t row_bytes = kv_row_bytes(type_, head_dim_);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = length_ + i;
    std::byte* block = writable(layer, position / kKvBlock);
    std::byte* row = block + position % kKvBlock * row_bytes;
    for (int64_t h = 0; h < kv_heads_; ++h) {
      const int64_t from = (i * kv_heads_ + h) * head_dim_;
      store_kv_row(k + from, head_dim_, type_, row + h * head_bytes_);
      store_kv_row(v + from, head_dim_, type_, row + (kv_heads_ + h) * head_bytes_);
    }
  }
}

void KvCache::pop_front(Layer& layer, int64_t count) {
  if (count <= 0) return;
  const int64_t held = std::min(count, std::ssize(layer.blocks));  // none where none was appended
  layer.blocks.erase(layer.blocks.begin(), layer.blocks.begin() + held);
  layer.data.erase(layer.data.begin(), layer.data.begin() + held);
  layer.first_block += count;
}

void KvCache::release_unseen(int layer_index, int64_t new_length) {
  Layer& layer = layers_[static_cast<size_t>(layer_index)];
  // One block more than the next query needs, so that up to kKvBlock tokens can be trimmed.
  pop_front(layer, layer.seen.first(new_length) / kKvBlock - 1 - layer.first_block);
}

void KvCache::advance(int64_t n) {
  length_ += n;
  for (int i = 0; i < static_cast<int>(layers_.size()); ++i) release_unseen(i, length_);
  drop_beyond_end();
}

void KvCache::drop_beyond_end() {
  const int64_t end = (length_ + kKvBlock - 1) / kKvBlock;  // of the blocks that hold a position
  for (Layer& layer : layers_) {
    const auto left = static_cast<size_t>(std::max<int64_t>(0, end - layer.first_block));
    layer.blocks.resize(std::min(left, layer.blocks.size()));
    layer.data.resize(layer.blocks.size());
  }
}

bool KvCache::trim(int64_t length) {
  LAPIDARY_CHECK(length >= 0 && length <= length_, "trim only shortens");
  for (const Layer& layer : layers_)
    if (layer.first_block * kKvBlock > layer.seen.first(length)) return false;
  length_ = length;
  drop_beyond_end();
  return true;
}

std::span<const std::byte* const> KvCache::blocks(int layer) const {
  return layers_[static_cast<size_t>(layer)].data;
}

void KvCache::reset(int64_t length, std::span<const int64_t> first_blocks) {
  length_ = length;
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    layer.blocks.clear();
    layer.data.clear();
    layer.first_block = first_blocks[i];
  }
}

std::span<std::byte> KvCache::writable_block(int layer, int64_t block) {
  return {writable(layers_[static_cast<size_t>(layer)], block),
          static_cast<size_t>(pool_->block_bytes())};
}

Config full_attention_everywhere(Config config) {
  config.layer_types.assign(config.layer_types.size(), LayerType::kFull);
  return config;
}

int64_t first_needed_block(const Config& config, int layer, int64_t length) {
  return SeenKeys(config, layer).first(length) / kKvBlock;
}

int64_t kv_cache_bytes(const Config& config, KvType type, int64_t context) {
  const int64_t all = (context + kKvBlock - 1) / kKvBlock;
  // A window that starts and ends inside blocks touches one more than fill it; and one is spare.
  const int64_t window = (config.sliding_window + kKvBlock - 1) / kKvBlock + 2;
  int64_t blocks = 0;
  for (int i = 0; i < config.num_hidden_layers; ++i)
    blocks += config.is_sliding(i) ? std::min(all, window) : all;
  return blocks * KvCache::block_bytes(config, type);
}

}  // namespace lapidary
