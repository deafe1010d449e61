// Attention of timelines that are whole in the batch, by products of matrices: for training, whose
// way back needs the same scores again, and for texts whose tokens see those after them. A head's
// queries are taken kQueries at a time, with all the keys that these see.
#include <algorithm>
#include <vector>

#include "lapidary/error.h"

#include "gemma/model.h"
#include "gemma/scores.h"
#include "gemma/seen_keys.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

constexpr int64_t kQueries = 64;

// A head of a segment, and what of its keys some of its queries see.
struct Head {
  int64_t first_row = 0;  // of the segment in the batch
  int64_t rows = 0;
  int64_t head = 0;
  int64_t kv_head = 0;
  SeenKeys seen;

  int64_t end_key(int64_t query) const { return seen.end(query, rows); }
};

struct Shape {
  const Kernels& kernels;
  int64_t head_dim;
  Scoring scoring;

  // Columns of head `head` of rows [first, first + count) of the head's segment.
  Strided part(Matrix m, const Head& h, int64_t head, int64_t first, int64_t count) const {
    return {m.row(h.first_row + first) + head * head_dim, count, head_dim, m.cols};
  }
  float* at(Matrix m, const Head& h, int64_t head, int64_t first) const {
    return m.row(h.first_row + first) + head * head_dim;
  }
};

// Scratch of one thread: scores and what the way back makes of them, and room for products.
struct Scratch {
  float* scores;   // [kQueries, keys]
  float* weights;  // [kQueries, keys]
  float* slopes;   // [kQueries, keys]
  float* products;

  static int64_t floats(const Kernels& kernels, int64_t keys) {
    return 3 * kQueries * keys + gemm_scratch_floats(kernels);
  }
  Scratch(float* memory, int64_t keys)
      : scores(memory),
        weights(scores + kQueries * keys),
        slopes(weights + kQueries * keys),
        products(slopes + kQueries * keys) {}
};

// The queries [first, first + count) of a head and the keys [key, key + keys) they see.
struct Block {
  int64_t first, count, key, keys;

  Block(const Head& h, int64_t query)
      : first(query),
        count(std::min(kQueries, h.rows - query)),
        key(h.seen.first(query)),
        keys(h.end_key(query + count - 1) - key) {}
};

// b.scores = capped scores, b.weights = their softmax, with 0 for what is not seen.
void weigh(const Shape& s, const Head& h, const Block& b, Matrix q, Matrix k, const Scratch& m) {
  score_keys(s.kernels, s.scoring, s.part(q, h, h.head, b.first, b.count),
             s.part(k, h, h.kv_head, b.key, b.keys), m.scores, m.products);
  for (int64_t i = 0; i < b.count; ++i)
    weigh_keys(s.kernels, m.scores + i * b.keys, b.keys, h.seen.first(b.first + i) - b.key,
               h.end_key(b.first + i) - b.key, m.weights + i * b.keys);
}

void forward_block(const Shape& s, const Head& h, const Block& b, const State& state,
                   const Scratch& m) {
  weigh(s, h, b, state.q, state.k, m);
  gemm(s.kernels, Strided(m.weights, b.count, b.keys, b.keys),
       s.part(state.v, h, h.kv_head, b.key, b.keys),
       {s.at(state.attn, h, h.head, b.first), state.attn.cols}, Into::kOverwrite, m.products);
}

// What attention saw, and where the gradients are.
struct Kept {
  Matrix q, k, v;           // [T, H * d], [T, KV * d] twice
  Matrix d_out, d_q;        // [T, H * d]
  Matrix head_dk, head_dv;  // [T, H * d]: of each query head; those that share keys add up later
};

// With weights w = softmax(scores) and out = w v:
//   dv += wᵀ d_out,   ds = w (d_out vᵀ - sum of w d_out vᵀ),   dq += ds k,   dk += dsᵀ q
// and ds times the slope of the cap and the scale.
void backward_block(const Shape& s, const Head& h, const Block& b, const Kept& kept,
                    const Scratch& m) {
  weigh(s, h, b, kept.q, kept.k, m);
  const Strided weights(m.weights, b.count, b.keys, b.keys);
  const Strided slopes(m.slopes, b.count, b.keys, b.keys);
  const Strided d_out = s.part(kept.d_out, h, h.head, b.first, b.count);
  gemm(s.kernels, weights.transposed(), d_out,
       {s.at(kept.head_dv, h, h.head, b.key), kept.head_dv.cols}, Into::kAdd, m.products);
  gemm(s.kernels, d_out, s.part(kept.v, h, h.kv_head, b.key, b.keys).transposed(),
       {m.slopes, b.keys}, Into::kOverwrite, m.products);
  for (int64_t i = 0; i < b.count; ++i) {
    const float* w = m.weights + i * b.keys;
    const float* score = m.scores + i * b.keys;
    float* ds = m.slopes + i * b.keys;
    double mean = 0;
    for (int64_t j = 0; j < b.keys; ++j) mean += double{w[j]} * ds[j];
    for (int64_t j = 0; j < b.keys; ++j)
      ds[j] = w[j] * (ds[j] - static_cast<float>(mean)) * s.scoring.scale;
    if (s.scoring.softcap > 0)
      for (int64_t j = 0; j < b.keys; ++j) {
        const float part = score[j] / s.scoring.softcap;
        ds[j] *= 1 - part * part;
      }
  }
  gemm(s.kernels, slopes, s.part(kept.k, h, h.kv_head, b.key, b.keys),
       {s.at(kept.d_q, h, h.head, b.first), kept.d_q.cols}, Into::kAdd, m.products);
  gemm(s.kernels, slopes.transposed(), s.part(kept.q, h, h.head, b.first, b.count),
       {s.at(kept.head_dk, h, h.head, b.key), kept.head_dk.cols}, Into::kAdd, m.products);
}

std::vector<Head> heads_of(const Config& c, int layer, std::span<const Segment> batch) {
  std::vector<Head> heads;
  int64_t row = 0;
  for (const Segment& seg : batch) {
    LAPIDARY_CHECK(seg.cache == nullptr, "segments with and without a cache do not mix");
    for (int64_t head = 0; head < c.num_attention_heads; ++head)
      heads.push_back({row, seg.rows, head, head / (c.num_attention_heads / c.num_key_value_heads),
                       SeenKeys(c, layer)});
    row += seg.rows;
  }
  return heads;
}

// Sums of the query heads that share a key/value head.
void add_shared(Executor& ex, Matrix of_heads, Matrix sums, int64_t head_dim) {
  const int64_t group = of_heads.cols / sums.cols;
  ex.for_each(sums.rows, of_heads.cols, [&](int64_t first, int64_t last, int) {
    for (int64_t t = first; t < last; ++t)
      for (int64_t i = 0; i < sums.cols; ++i)
        for (int64_t g = 0; g < group; ++g)
          sums.row(t)[i] += of_heads.row(t)[(i / head_dim * group + g) * head_dim + i % head_dim];
  });
}

void backward(Executor& ex, const Shape& shape, const std::vector<Head>& heads, int64_t keys,
              const State& s, Kept kept) {
  Tape& tape = *ex.tape;
  kept.d_out = tape.gradient(s.attn);
  kept.d_q = tape.gradient(s.q);
  for (Matrix* m : {&kept.head_dk, &kept.head_dv}) {
    *m = tape.room(kept.q.rows, kept.q.cols);
    std::fill_n(m->data, m->size(), 0.0f);
  }
  // s.q, s.k and s.v are not written by attention: their gradients add up from here on.
  ex.reserve_scratch(Scratch::floats(ex.kernels(), keys));
  ex.for_each(std::ssize(heads), 1 << 20, [&](int64_t first, int64_t last, int thread) {
    const Scratch scratch(ex.scratch(thread), keys);
    for (int64_t i = first; i < last; ++i) {
      const Head& h = heads[static_cast<size_t>(i)];
      for (int64_t query = 0; query < h.rows; query += kQueries)
        backward_block(shape, h, Block(h, query), kept, scratch);
    }
  });
  add_shared(ex, kept.head_dk, tape.gradient(s.k), shape.head_dim);
  add_shared(ex, kept.head_dv, tape.gradient(s.v), shape.head_dim);
  std::fill_n(kept.d_out.data, kept.d_out.size(), 0.0f);
}

}  // namespace

void attend_within(Executor& ex, const Config& c, int layer, std::span<const Segment> batch,
                   State& s) {
  const Shape shape{ex.kernels(), c.head_dim, Scoring(c)};
  const std::vector<Head> heads = heads_of(c, layer, batch);
  int64_t keys = 0;
  struct Task {
    size_t head;
    int64_t query;
  };
  std::vector<Task> tasks;
  for (size_t i = 0; i < heads.size(); ++i) {
    const Head& h = heads[i];
    keys = std::max(keys, std::min(h.rows, h.seen.before + kQueries + h.seen.after));
    for (int64_t query = 0; query < heads[i].rows; query += kQueries) tasks.push_back({i, query});
  }
  ex.reserve_scratch(Scratch::floats(ex.kernels(), keys));
  ex.for_each(std::ssize(tasks), 1 << 20, [&](int64_t first, int64_t last, int thread) {
    const Scratch scratch(ex.scratch(thread), keys);
    for (int64_t i = first; i < last; ++i) {
      const auto& [head, query] = tasks[static_cast<size_t>(i)];
      forward_block(shape, heads[head], Block(heads[head], query), s, scratch);
    }
  });
  if (ex.tape != nullptr)
    ex.tape->record(
        [&ex, shape, heads, keys, &s,
         kept = Kept{ex.tape->keep(s.q), ex.tape->keep(s.k), ex.tape->keep(s.v), {}, {}, {}, {}}] {
          backward(ex, shape, heads, keys, s, kept);
        });
}

}  // namespace lapidary
