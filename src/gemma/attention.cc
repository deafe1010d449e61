#include <algorithm>

#include "gemma/model.h"
#include "gemma/scores.h"

namespace lapidary {

namespace {

// What attention does at once: up to kAttendRows query rows that share one K/V head of one
// timeline. Row i of a timeline's group is token i / G, head i % G, with G query heads per K/V
// head.
struct Task {
  const Segment* segment;
  int64_t first_row;  // of the segment in the batch
  int64_t first_item;
  int items;
  int kv_head;
};

// The tasks of a batch, by number: those of a segment follow each other, head by head.
class Tasks {
 public:
  Tasks(const Config& c, std::span<const Segment> batch)
      : batch_(batch),
        heads_(c.num_key_value_heads),
        group_(c.num_attention_heads / c.num_key_value_heads) {
    for (const Segment& seg : batch) count_ += tiles(seg) * heads_;
  }

  int64_t count() const { return count_; }

  Task operator[](int64_t i) const {
    int64_t row = 0;
    const Segment* seg = batch_.data();
    for (; i >= tiles(*seg) * heads_; ++seg) {
      i -= tiles(*seg) * heads_;
      row += seg->rows;
    }
    const int64_t first_item = i % tiles(*seg) * kAttendRows;
    const int64_t items = std::min<int64_t>(kAttendRows, seg->rows * group_ - first_item);
    return {seg, row, first_item, static_cast<int>(items), static_cast<int>(i / tiles(*seg))};
  }

 private:
  int64_t tiles(const Segment& seg) const {
    return (seg.rows * group_ + kAttendRows - 1) / kAttendRows;
  }

  std::span<const Segment> batch_;
  int64_t heads_, group_;
  int64_t count_ = 0;
};

// The rows of a task: where they are and which positions they see.
struct Rows {
  const float* q[kAttendRows];
  float* out[kAttendRows];
  int64_t first[kAttendRows], last[kAttendRows];

  Rows(const Config& c, int layer, const Task& task, State& s) {
    const int group = c.num_attention_heads / c.num_key_value_heads;
    const SeenKeys& seen = task.segment->cache->seen(layer);
    for (int i = 0; i < task.items; ++i) {
      const int64_t token = (task.first_item + i) / group;
      const int64_t head = task.kv_head * group + (task.first_item + i) % group;
      q[i] = s.q.row(task.first_row + token) + head * c.head_dim;
      out[i] = s.attn.row(task.first_row + token) + head * c.head_dim;
      const int64_t position = task.segment->cache->length() + token;
      first[i] = seen.first(position);
      last[i] = task.segment->seen_end(token);
    }
  }
};

AttendArgs arguments(const Config& c, int layer, const Task& task, const Rows& rows,
                     float* scratch) {
  const KvCache& cache = *task.segment->cache;
  return {.q = rows.q,
          .out = rows.out,
          .first = rows.first,
          .last = rows.last,
          .rows = task.items,
          .head_dim = c.head_dim,
          .scale = Scoring(c).scale,
          .softcap = Scoring(c).softcap,
          .kv_type = cache.type(),
          .blocks = cache.blocks(layer).data(),
          .k_offset = cache.k_offset(task.kv_head),
          .v_offset = cache.v_offset(task.kv_head),
          .first_block = cache.first_block(layer),
          .scratch = scratch};
}

// Decoding has few tasks, one per K/V head and timeline, and each may read megabytes. Their pieces
// are shared out, and what comes of them is merged: the same bits as in one go.
void attend_in_pieces(Executor& ex, const Config& c, int layer, const Tasks& tasks, int64_t pieces,
                      State& s) {
  const int64_t floats = attend_partial_floats(c.head_dim), piece_floats = kAttendRows * floats;
  const auto needed = static_cast<size_t>(tasks.count() * pieces * piece_floats);
  if (s.partials.size() < needed) s.partials.resize(needed);
  const auto partial = [&](int64_t unit) { return s.partials.data() + unit * piece_floats; };
  const int64_t work = 2 * kAttendPiece * c.head_dim * kAttendRows;
  ex.for_each(tasks.count() * pieces, work, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const Task task = tasks[unit / pieces];
      const Rows rows(c, layer, task, s);
      AttendArgs args = arguments(c, layer, task, rows, ex.scratch(thread));
      args.piece = rows.first[0] / kAttendPiece + unit % pieces;
      args.partial = partial(unit);
      ex.kernels().attend(args);
    }
  });
  for (int64_t i = 0; i < tasks.count(); ++i) {
    const Task task = tasks[i];
    const Rows rows(c, layer, task, s);
    for (int r = 0; r < task.items; ++r)
      ex.kernels().merge_attention(partial(i * pieces) + r * floats, pieces, piece_floats,
                                   c.head_dim, rows.out[r]);
  }
}

}  // namespace

void attend(Executor& ex, const Config& c, int layer, std::span<const Segment> batch, State& s) {
  if (!batch.empty() && batch.front().cache == nullptr)
    return attend_within(ex, c, layer, batch, s);
  const Tasks tasks(c, batch);
  int64_t pieces = 0, keys = 0, first_row = 0;
  for (const Segment& seg : batch) {
    seg.cache->append(layer, s.k.row(first_row), s.v.row(first_row), seg.rows);
    first_row += seg.rows;
    const int64_t last = seg.cache->length() + seg.rows;
    const int64_t first = seg.cache->seen(layer).first(seg.cache->length());
    keys = std::max(keys, last - first);
    pieces = std::max(pieces, (last - 1) / kAttendPiece - first / kAttendPiece + 1);
  }
  ex.reserve_scratch(attend_scratch_floats(c.head_dim));
  if (std::ranges::any_of(batch, [](const Segment& seg) { return seg.share != nullptr; })) {
    attend_shared(ex, c, layer, batch, s);
  } else if (pieces > 1 && tasks.count() < 2 * ex.pool().threads()) {
    attend_in_pieces(ex, c, layer, tasks, pieces, s);
  } else {
    const int64_t work = 2 * keys * c.head_dim * kAttendRows;
    ex.for_each(tasks.count(), work, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        // The last rows of a prompt see most: they go first, so that the threads end together.
        const Task task = tasks[tasks.count() - 1 - i];
        const Rows rows(c, layer, task, s);
        ex.kernels().attend(arguments(c, layer, task, rows, ex.scratch(thread)));
      }
    });
  }
  for (const Segment& seg : batch)
    seg.cache->release_unseen(layer, seg.cache->length() + seg.kept());
}

}  // namespace lapidary
