// Attention of timelines that share a cache. It serves an experiment and not speed: a row at a
// time, over each stretch of the cache that its timeline has.
#include <algorithm>
#include <utility>
#include <vector>

#include "gemma/model.h"
#include "gemma/scores.h"
#include "gemma/seen_keys.h"

namespace lapidary {

namespace {

using Range = std::pair<int64_t, int64_t>;  // of positions in the cache, [first, last)

// What the timeline has, the rows of this batch last.
std::vector<Range> ranges_of(const Segment& seg) {
  const int64_t length = seg.cache->length();
  if (seg.share == nullptr) return {{0, length + seg.rows}};
  std::vector<Range> ranges(seg.share->ranges().begin(), seg.share->ranges().end());
  ranges.emplace_back(length, length + seg.rows);
  return ranges;
}

int64_t pieces_of(std::span<const Range> ranges) {
  int64_t pieces = 0;
  for (const auto& [first, last] : ranges)
    pieces += (last - 1) / kAttendPiece - first / kAttendPiece + 1;
  return pieces;
}

// One query row of one head; `partials` has room for all pieces of the ranges.
void attend_row(const Kernels& kernels, AttendArgs args, std::span<const Range> ranges,
                int64_t first_seen, int64_t last_seen, float* partials) {
  const int64_t floats = attend_partial_floats(args.head_dim);
  int64_t count = 0, at = 0;  // `at` counts positions of the timeline
  for (const auto& [begin, end] : ranges) {
    const int64_t first = begin + std::max<int64_t>(0, first_seen - at);
    const int64_t last = std::min(end, begin + last_seen - at);
    at += end - begin;
    if (first >= last) continue;
    args.first = &first;
    args.last = &last;
    for (args.piece = first / kAttendPiece; args.piece * kAttendPiece < last; ++args.piece) {
      args.partial = partials + count++ * floats;
      kernels.attend(args);
    }
  }
  kernels.merge_attention(partials, count, floats, args.head_dim, *args.out);
}

}  // namespace

void attend_shared(Executor& ex, const Config& c, int layer, std::span<const Segment> batch,
                   State& s) {
  const Scoring scoring(c);
  const int heads = c.num_attention_heads, group = heads / c.num_key_value_heads;
  int64_t first_row = 0;
  for (const Segment& seg : batch) {
    const std::vector<Range> ranges = ranges_of(seg);
    const int64_t room = pieces_of(ranges) * attend_partial_floats(c.head_dim);
    const auto needed = static_cast<size_t>(ex.pool().threads() * room);
    if (s.partials.size() < needed) s.partials.resize(needed);
    const KvCache& cache = *seg.cache;
    // A cache of several timelines keeps everything, but each of them sees what the model says.
    const SeenKeys seen = seg.share != nullptr ? SeenKeys(c, layer) : cache.seen(layer);
    const int64_t work = 2 * (seg.start() + seg.rows) * c.head_dim;
    ex.for_each(seg.rows * heads, work, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / heads;
        const auto head = static_cast<int>(i % heads);
        const float* q = s.q.row(first_row + row) + head * c.head_dim;
        float* out = s.attn.row(first_row + row) + head * c.head_dim;
        const int64_t position = seg.start() + row;
        attend_row(ex.kernels(),
                   {.q = &q,
                    .out = &out,
                    .rows = 1,
                    .head_dim = c.head_dim,
                    .scale = scoring.scale,
                    .softcap = scoring.softcap,
                    .kv_type = cache.type(),
                    .blocks = cache.blocks(layer).data(),
                    .k_offset = cache.k_offset(head / group),
                    .v_offset = cache.v_offset(head / group),
                    .first_block = cache.first_block(layer),
                    .scratch = ex.scratch(thread)},
                   ranges, seen.first(position), seg.seen_end(row),
                   s.partials.data() + thread * room);
      }
    });
    first_row += seg.rows;
  }
}

}  // namespace lapidary
