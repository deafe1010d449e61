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

// A head of a segment.
struct Head {
  int64_t first_row = 0;  // of the segment in the batch
  int64_t head = 0;
  int64_t kv_head = 0;
  Sight sight;
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

// The queries [first, first + count) of a head, clean or noisy ones alone, and the keys that some
// of them see, whose scores stand side by side: those of the past and, of noisy ones, those of the
// blocks that the queries are in.
struct Block {
  int64_t first, count;
  KeyRange past, own;  // rows of the segment

  Block(const Sight& sight, int64_t query)
      : first(query),
        count(std::min(kQueries, sight.end_of_copy(query) - query)),
        past(sight.past(query).to(sight.past(query + count - 1))),
        own(sight.own_block(query).to(sight.own_block(query + count - 1))) {}

  int64_t keys() const { return past.size() + own.size(); }
  int64_t end() const { return first + count; }

  // fn(key, keys, column) for each range of rows [key, key + keys), whose scores begin at column.
  template <class Fn>
  void for_each_range(const Fn& fn) const {
    if (past.size() > 0) fn(past.first, past.size(), int64_t{0});
    if (own.size() > 0) fn(own.first, own.size(), past.size());
  }
};

// b.scores = capped scores, b.weights = their softmax, with 0 for what is not seen.
void weigh(const Shape& s, const Head& h, const Block& b, Matrix q, Matrix k, const Scratch& m) {
  const int64_t width = b.keys();
  b.for_each_range([&](int64_t key, int64_t keys, int64_t column) {
    gemm(s.kernels, s.part(q, h, h.head, b.first, b.count),
         s.part(k, h, h.kv_head, key, keys).transposed(), {m.scores + column, width},
         Into::kOverwrite, m.products);
  });
  finish_scores(s.kernels, s.scoring, m.scores, b.count * width);
  for (int64_t i = 0; i < b.count; ++i) {
    const KeyRange past = h.sight.past(b.first + i), own = h.sight.own_block(b.first + i);
    const int64_t to_own = b.past.size() - b.own.first;
    weigh_keys(s.kernels, m.scores + i * width, width,
               {past.first - b.past.first, past.end - b.past.first},
               {own.first + to_own, own.end + to_own}, m.weights + i * width);
  }
}

void forward_block(const Shape& s, const Head& h, const Block& b, const State& state,
                   const Scratch& m) {
  weigh(s, h, b, state.q, state.k, m);
  Into into = Into::kOverwrite;
  b.for_each_range([&](int64_t key, int64_t keys, int64_t column) {
    gemm(s.kernels, Strided(m.weights + column, b.count, keys, b.keys()),
         s.part(state.v, h, h.kv_head, key, keys),
         {s.at(state.attn, h, h.head, b.first), state.attn.cols}, into, m.products);
    into = Into::kAdd;
  });
}

// What attention saw, and where the gradients are.
struct Kept {
  Matrix q, k, v;           // [T, H * d], [T, KV * d] twice
  Matrix d_out, d_q;        // [T, H * d]
  Matrix head_dk, head_dv;  // [T, H * d]: of each query head; those that share keys add up later
};

// m.slopes = the gradient of the scores before the cap, of that of the weights, in place.
void slopes_of_scores(const Scoring& scoring, int64_t rows, int64_t keys, const Scratch& m) {
  for (int64_t i = 0; i < rows; ++i) {
    const float* w = m.weights + i * keys;
    const float* score = m.scores + i * keys;
    float* ds = m.slopes + i * keys;
    double mean = 0;
    for (int64_t j = 0; j < keys; ++j) mean += double{w[j]} * ds[j];
    for (int64_t j = 0; j < keys; ++j)
      ds[j] = w[j] * (ds[j] - static_cast<float>(mean)) * scoring.scale;
    if (scoring.softcap > 0)
      for (int64_t j = 0; j < keys; ++j) {
        const float part = score[j] / scoring.softcap;
        ds[j] *= 1 - part * part;
      }
  }
}

// With weights w = softmax(scores) and out = w v:
//   dv += wᵀ d_out,   ds = w (d_out vᵀ - sum of w d_out vᵀ),   dq += ds k,   dk += dsᵀ q
// and ds times the slope of the cap and the scale.
void backward_block(const Shape& s, const Head& h, const Block& b, const Kept& kept,
                    const Scratch& m) {
  weigh(s, h, b, kept.q, kept.k, m);
  const int64_t width = b.keys();
  const Strided d_out = s.part(kept.d_out, h, h.head, b.first, b.count);
  b.for_each_range([&](int64_t key, int64_t keys, int64_t column) {
    gemm(s.kernels, Strided(m.weights + column, b.count, keys, width).transposed(), d_out,
         {s.at(kept.head_dv, h, h.head, key), kept.head_dv.cols}, Into::kAdd, m.products);
    gemm(s.kernels, d_out, s.part(kept.v, h, h.kv_head, key, keys).transposed(),
         {m.slopes + column, width}, Into::kOverwrite, m.products);
  });
  slopes_of_scores(s.scoring, b.count, width, m);
  b.for_each_range([&](int64_t key, int64_t keys, int64_t column) {
    const Strided slopes(m.slopes + column, b.count, keys, width);
    gemm(s.kernels, slopes, s.part(kept.k, h, h.kv_head, key, keys),
         {s.at(kept.d_q, h, h.head, b.first), kept.d_q.cols}, Into::kAdd, m.products);
    gemm(s.kernels, slopes.transposed(), s.part(kept.q, h, h.head, b.first, b.count),
         {s.at(kept.head_dk, h, h.head, key), kept.head_dk.cols}, Into::kAdd, m.products);
  });
}

std::vector<Head> heads_of(const Config& c, int layer, std::span<const Segment> batch) {
  std::vector<Head> heads;
  int64_t row = 0;
  for (const Segment& seg : batch) {
    LAPIDARY_CHECK(seg.cache == nullptr, "segments with and without a cache do not mix");
    for (int64_t head = 0; head < c.num_attention_heads; ++head)
      heads.push_back({row,
                       head,
                       head / (c.num_attention_heads / c.num_key_value_heads),
                       {SeenKeys(c, layer), seg.length(), seg.set_block}});
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
      for (int64_t query = 0; query < h.sight.rows();) {
        const Block block(h.sight, query);
        backward_block(shape, h, block, kept, scratch);
        query = block.end();
      }
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
    const Head& head;
    Block block;
  };
  std::vector<Task> tasks;
  for (const Head& h : heads)
    for (int64_t query = 0; query < h.sight.rows(); query = tasks.back().block.end()) {
      tasks.push_back({h, Block(h.sight, query)});
      keys = std::max(keys, tasks.back().block.keys());
    }
  ex.reserve_scratch(Scratch::floats(ex.kernels(), keys));
  ex.for_each(std::ssize(tasks), 1 << 20, [&](int64_t first, int64_t last, int thread) {
    const Scratch scratch(ex.scratch(thread), keys);
    for (int64_t i = first; i < last; ++i) {
      const auto& [head, block] = tasks[static_cast<size_t>(i)];
      forward_block(shape, head, block, s, scratch);
    }
  });
  if (ex.tape != nullptr)
    ex.tape->record([&ex, shape, heads, keys, &s,
                     kept = Kept{ex.tape->keep(ex, s.q),
                                 ex.tape->keep(ex, s.k),
                                 ex.tape->keep(ex, s.v),
                                 {},
                                 {},
                                 {},
                                 {}}] { backward(ex, shape, heads, keys, s, kept); });
}

}  // namespace lapidary
