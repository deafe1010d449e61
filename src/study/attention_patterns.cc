#include "study/attention_patterns.h"

#include <algorithm>

#include "gemma/scores.h"
#include "gemma/seen_keys.h"
#include "kernels/kernels.h"
#include "kernels/kv_rows.h"
#include "tensor/gemm.h"

namespace lapidary {

AttentionPatterns::AttentionPatterns(const Config& config, KvType type, int threads,
                                     OnBlock on_block, OnChunk on_chunk, int64_t first_query)
    : config_(config),
      type_(type),
      pool_(threads),
      on_block_(std::move(on_block)),
      on_chunk_(std::move(on_chunk)),
      first_query_(first_query),
      keys_(static_cast<size_t>(config.num_hidden_layers)),
      memory_(static_cast<size_t>(threads)) {}

Tap AttentionPatterns::tap() {
  return [this](const Activation& a) {
    if (a.point == "attn.hook_rot_q") {
      queries_.assign(a.values, a.values + a.rows * a.cols);
      rows_ = a.rows;
    } else if (a.point == "attn.hook_rot_k") {
      take_keys(a);
      weigh_chunk(a.layer, a.position);
    }
  };
}

void AttentionPatterns::take_keys(const Activation& a) {
  Keys& keys = keys_[static_cast<size_t>(a.layer)];
  const int64_t unseen = SeenKeys(config_, a.layer).first(a.position) - keys.first;
  if (unseen > 0) {
    keys.values.erase(keys.values.begin(), keys.values.begin() + unseen * a.cols);
    keys.first += unseen;
  }
  std::vector<std::byte> row(static_cast<size_t>(kv_row_bytes(type_, config_.head_dim)));
  for (const float* head = a.values; head != a.values + a.rows * a.cols; head += config_.head_dim) {
    store_kv_row(head, config_.head_dim, type_, row.data());
    for (int i = 0; i < config_.head_dim; ++i)
      keys.values.push_back(kv_value(row.data(), config_.head_dim, type_, i));
  }
}

void AttentionPatterns::weigh_chunk(int layer, int64_t position) {
  const int64_t heads = config_.num_attention_heads, end = position + rows_;
  const int64_t first = std::max(position, first_query_);
  if (first >= end) return;
  const int64_t first_slot = first / kPatternQueries;
  const int64_t slots = (end - 1) / kPatternQueries - first_slot + 1;
  pool_.parallel_for(slots, [&](int64_t from, int64_t to, int thread) {
    for (int64_t slot = from; slot < to; ++slot) {
      const int64_t begin = std::max(first, (first_slot + slot) * kPatternQueries);
      const int64_t stop = std::min(end, (first_slot + slot + 1) * kPatternQueries);
      PatternBlock block{.layer = layer,
                         .first_query = begin,
                         .queries = stop - begin,
                         .first_key = SeenKeys(config_, layer).first(begin),
                         .heads = heads};
      block.keys = stop - block.first_key;
      const int64_t size = heads * block.queries * block.keys;
      std::vector<float>& memory = memory_[static_cast<size_t>(thread)];
      const int64_t needed = size + gemm_scratch_floats(best_kernels());
      if (std::ssize(memory) < needed) memory.resize(static_cast<size_t>(needed));
      block.weights = memory.data();
      weigh({block}, memory.data(), memory.data() + size);
      on_block_(block, slot);
    }
  });
  if (on_chunk_) on_chunk_(layer, slots);
}

void AttentionPatterns::weigh(const PatternBlock& block, float* weights, float* scratch) const {
  const Kernels& kernels = best_kernels();
  const Keys& keys = keys_[static_cast<size_t>(block.layer)];
  const int64_t d = config_.head_dim, q_dim = config_.q_dim(), kv_dim = config_.kv_dim();
  const int64_t group = config_.num_attention_heads / config_.num_key_value_heads;
  const int64_t chunk = keys.first + std::ssize(keys.values) / kv_dim - rows_;  // its position
  const Scoring scoring(config_);
  const SeenKeys seen(config_, block.layer);
  const int64_t size = block.queries * block.keys;
  for (int64_t head = 0; head < block.heads; ++head) {
    float* scores = weights + head * size;
    const Strided q(queries_.data() + (block.first_query - chunk) * q_dim + head * d, block.queries,
                    d, q_dim);
    const Strided k(keys.values.data() + (block.first_key - keys.first) * kv_dim + head / group * d,
                    block.keys, d, kv_dim);
    score_keys(kernels, scoring, q, k, scores, scratch);
    for (int64_t i = 0; i < block.queries; ++i) {
      const int64_t query = block.first_query + i;
      float* row = scores + i * block.keys;
      weigh_keys(kernels, row, block.keys, seen.first(query) - block.first_key,
                 query + 1 - block.first_key, row);
    }
  }
}

}  // namespace lapidary
