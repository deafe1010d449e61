#include <algorithm>
#include <cmath>

#include "gemma/model.h"

namespace lapidary {

namespace {

// What attention does at once: up to kAttendRows query rows that share one K/V head of one
// timeline. Row i of a timeline's group is token i / G, head i % G, with G query heads per K/V
// head.
struct Task {
  const KvCache* cache;
  int64_t first_row;  // of the segment in the batch
  int64_t start;      // position of that row
  int64_t first_item;
  int items;
  int kv_head;
};

void run_task(Executor& ex, const Config& c, int layer, const Task& task, State& s,
              float* scratch) {
  const int group = c.num_attention_heads / c.num_key_value_heads;
  const int64_t window = c.is_sliding(layer) ? c.sliding_window : 0;
  const float* q[kAttendRows];
  float* out[kAttendRows];
  int64_t first[kAttendRows], last[kAttendRows];
  for (int i = 0; i < task.items; ++i) {
    const int64_t token = (task.first_item + i) / group;
    const int64_t head = task.kv_head * group + (task.first_item + i) % group;
    const int64_t row = task.first_row + token;
    q[i] = s.q.row(row) + head * c.head_dim;
    out[i] = s.attn.row(row) + head * c.head_dim;
    last[i] = task.start + token + 1;  // a query sees itself
    first[i] = window > 0 ? std::max<int64_t>(0, last[i] - window) : 0;
  }
  ex.kernels().attend({.q = q,
                       .out = out,
                       .first = first,
                       .last = last,
                       .rows = task.items,
                       .head_dim = c.head_dim,
                       .scale = static_cast<float>(1 / std::sqrt(c.query_pre_attn_scalar)),
                       .softcap = static_cast<float>(c.attn_logit_softcapping),
                       .kv_type = task.cache->type(),
                       .blocks = task.cache->blocks(layer).data(),
                       .k_offset = task.cache->k_offset(task.kv_head),
                       .v_offset = task.cache->v_offset(task.kv_head),
                       .first_block = task.cache->first_block(layer),
                       .scratch = scratch});
}

}  // namespace

void attend(Executor& ex, const Config& c, int layer, std::span<const Segment> batch, State& s) {
  const int64_t group = c.num_attention_heads / c.num_key_value_heads;
  const auto tiles_of = [&](const Segment& seg) {
    return (seg.rows * group + kAttendRows - 1) / kAttendRows;
  };
  int64_t tasks = 0, keys = 0, first_row = 0;
  for (const Segment& seg : batch) {
    seg.cache->append(layer, s.k.row(first_row), s.v.row(first_row), seg.rows);
    first_row += seg.rows;
    tasks += tiles_of(seg) * c.num_key_value_heads;
    keys = std::max(keys, seg.cache->length() + seg.rows);
  }
  if (c.is_sliding(layer)) keys = std::min<int64_t>(keys, c.sliding_window);

  ex.reserve_scratch(attend_scratch_floats(c.head_dim));
  const int64_t work = 2 * keys * c.head_dim * kAttendRows;
  ex.for_each(tasks, work, [&](int64_t begin, int64_t end, int thread) {
    int64_t task = 0, row = 0;  // of the segment
    for (const Segment& seg : batch) {
      const int64_t tiles = tiles_of(seg), count = tiles * c.num_key_value_heads;
      for (int64_t i = std::max(begin, task); i < std::min(end, task + count); ++i) {
        const int64_t tile = (i - task) % tiles;
        const int64_t first_item = tile * kAttendRows;
        const auto items =
            static_cast<int>(std::min<int64_t>(kAttendRows, seg.rows * group - first_item));
        run_task(ex, c, layer,
                 {.cache = seg.cache,
                  .first_row = row,
                  .start = seg.cache->length(),
                  .first_item = first_item,
                  .items = items,
                  .kv_head = static_cast<int>((i - task) / tiles)},
                 s, ex.scratch(thread));
      }
      task += count;
      row += seg.rows;
    }
  });
  for (const Segment& seg : batch) seg.cache->release_unseen(layer, seg.cache->length() + seg.rows);
}

}  // namespace lapidary
