// Attention and the loss: their ways back against their definitions (central_differences.h).
#include <cmath>
#include <numeric>

#include "gemma/backprop.h"
#include "tensor/central_differences.h"

namespace lapidary {
namespace {

struct Attention {
  int64_t heads, kv_heads, head_dim, window;  // window 0: none
  double scale, cap;                          // cap 0: none
  std::vector<int64_t> documents;             // rows of each
  bool both_ways = false;
  int64_t block = 0;  // of a noisy copy behind each document; 0: there is none

  int64_t rows_of(int64_t length) const { return block > 0 ? 2 * length : length; }

  // Whether row `t` of a document's rows sees row `key`.
  bool sees(int64_t length, int64_t t, int64_t key) const {
    if (both_ways) return window == 0 || std::abs(t - key) < window / 2 + 1;  // as transformers
    const bool noisy = t >= length, of_noisy = key >= length;
    const int64_t at = t % length, key_at = key % length;
    if (of_noisy) return noisy && at / block == key_at / block;
    if (noisy && key_at / block >= at / block) return false;
    return key_at <= at && (window == 0 || at - key_at < window);
  }

  // Of row `t` of a document that begins at row `begin`, with a head's part of q, k and v.
  void add_row(const std::vector<Doubles>& in, int64_t begin, int64_t length, int64_t t,
               int64_t head, Doubles& out) const {
    const int64_t kv = head / (heads / kv_heads);
    const auto at = [&](int64_t row, int64_t width, int64_t part) {
      return static_cast<size_t>((begin + row) * width * head_dim + part * head_dim);
    };
    const auto dim = static_cast<size_t>(head_dim);
    Doubles scores;
    std::vector<int64_t> keys;
    for (int64_t key = 0; key < rows_of(length); ++key) {
      if (!sees(length, t, key)) continue;
      keys.push_back(key);
      double score = 0;
      for (size_t i = 0; i < dim; ++i)
        score += in[0][at(t, heads, head) + i] * in[1][at(key, kv_heads, kv) + i];
      score *= scale;
      scores.push_back(std::exp(cap > 0 ? cap * std::tanh(score / cap) : score));
    }
    const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (size_t i = 0; i < dim; ++i) {
      double value = 0;
      for (size_t key = 0; key < scores.size(); ++key)
        value += scores[key] / sum * in[2][at(keys[key], kv_heads, kv) + i];
      out.push_back(value);
    }
  }

  Doubles operator()(const std::vector<Doubles>& in) const {
    Doubles out;
    int64_t begin = 0;
    for (const int64_t length : documents) {
      for (int64_t t = 0; t < rows_of(length); ++t)
        for (int64_t head = 0; head < heads; ++head) add_row(in, begin, length, t, head, out);
      begin += rows_of(length);
    }
    return out;
  }

  Config config() const {
    Config c;
    c.vocab_size = c.hidden_size = c.intermediate_size = 1;
    c.num_hidden_layers = 1;
    c.num_attention_heads = static_cast<int>(heads);
    c.num_key_value_heads = static_cast<int>(kv_heads);
    c.head_dim = static_cast<int>(head_dim);
    c.sliding_window = static_cast<int>(window);
    c.use_bidirectional_attention = both_ways;
    c.layer_types = {window > 0 ? LayerType::kSliding : LayerType::kFull};
    c.query_pre_attn_scalar = 1 / (scale * scale);
    c.attn_logit_softcapping = cap;
    return c;
  }
};

// `roundings`: the longest sums are over the keys and over a head, each behind the other, and an
// exponential whose argument of size |s| was rounded is off by |s| roundings.
void expect_gradients_of(const Attention& attention, double size, double roundings) {
  const Config config = attention.config();
  int64_t rows = 0;
  for (const int64_t length : attention.documents) rows += attention.rows_of(length);
  Executor ex(best_kernels(), 2);
  Tape tape;
  State s(config, rows);
  AlignedVector<float> gradients(s.memory().size());
  tape.track(s.memory().data(), std::ssize(s.memory()), gradients.data());
  std::vector<Segment> segments;
  for (const int64_t length : attention.documents)
    segments.push_back(
        {.cache = nullptr, .rows = attention.rows_of(length), .set_block = attention.block});
  s.place(ex, segments);
  Leaves leaves(tape);
  leaves.fill(s.q, size);
  leaves.fill(s.k, size);
  leaves.fill(s.v);
  expect_gradients(
      ex, tape, {s.q, s.k, s.v},
      [&] {
        attend_within(ex, config, 0, segments, s);
        return std::vector{s.attn};
      },
      attention, roundings);
}

TEST(AttentionGradients, WithinDocuments) {
  expect_gradients_of({.heads = 4,
                       .kv_heads = 2,
                       .head_dim = 4,
                       .window = 0,
                       .scale = 0.5,
                       .cap = 0,
                       .documents = {7, 1, 5}},
                      2, 60);
}

TEST(AttentionGradients, OfASlidingWindow) {
  expect_gradients_of({.heads = 2,
                       .kv_heads = 1,
                       .head_dim = 4,
                       .window = 3,
                       .scale = 0.5,
                       .cap = 0,
                       .documents = {9, 4}},
                      2, 60);
}

// Of models that embed texts; the longer document is more than one block of queries.
TEST(AttentionGradients, OfTokensThatSeeThoseAfterThem) {
  for (const int64_t window : {0, 4, 5})
    expect_gradients_of({.heads = 2,
                         .kv_heads = 1,
                         .head_dim = 4,
                         .window = window,
                         .scale = 0.5,
                         .cap = 0,
                         .documents = {70, 1, 9},
                         .both_ways = true},
                        2, 150);
}

// A noisy copy behind each document: of documents that end within a block, are one, or are more
// than a block of queries.
TEST(AttentionGradients, OfSetBlocks) {
  for (const int64_t window : {0, 6})
    for (const int64_t block : {1, 4, 6})
      expect_gradients_of({.heads = 2,
                           .kv_heads = 1,
                           .head_dim = 4,
                           .window = window,
                           .scale = 0.5,
                           .cap = 0,
                           .documents = {10, 1, 8},
                           .block = block},
                          2, 60);
  expect_gradients_of({.heads = 1,
                       .kv_heads = 1,
                       .head_dim = 2,
                       .window = 20,
                       .scale = 0.7,
                       .cap = 1.5,
                       .documents = {70},
                       .block = 9},
                      3, 60);
}

// Scores of several times the cap, where its slope is far from one.
TEST(AttentionGradients, OfCappedScores) {
  expect_gradients_of({.heads = 2,
                       .kv_heads = 2,
                       .head_dim = 4,
                       .window = 0,
                       .scale = 0.5,
                       .cap = 1.5,
                       .documents = {6, 3}},
                      3, 60);
}

// Queries are taken 64 at a time: two blocks, of which the second has keys in the first.
TEST(AttentionGradients, AcrossBlocksOfQueries) {
  expect_gradients_of({.heads = 1,
                       .kv_heads = 1,
                       .head_dim = 2,
                       .window = 0,
                       .scale = 0.7,
                       .cap = 0,
                       .documents = {70}},
                      2, 140);
  expect_gradients_of({.heads = 1,
                       .kv_heads = 1,
                       .head_dim = 2,
                       .window = 20,
                       .scale = 0.7,
                       .cap = 0,
                       .documents = {70}},
                      2, 60);
}

TEST(CrossEntropyGradients, OfTheRowsAndTheHead) {
  constexpr int64_t kRows = 5, kCols = 6, kVocab = 11;
  constexpr float kScale = 0.25f;
  const std::vector<Token> targets = {3, kNoTarget, 10, 0, 3};
  for (const double cap : {0.0, 1.5}) {
    SCOPED_TRACE(cap);
    Config config;
    config.vocab_size = kVocab;
    config.final_logit_softcapping = cap;
    Executor ex(best_kernels(), 2);
    Tape tape;
    Leaves leaves(tape);
    const Matrix h = leaves.add(kRows, kCols, 2), head = leaves.add(kVocab, kCols);
    const Definition definition = [&](const auto& in) {
      double nats = 0;
      for (size_t t = 0; t < kRows; ++t) {
        if (targets[t] == kNoTarget) continue;
        double sum = 0, of_target = 0;
        for (size_t v = 0; v < kVocab; ++v) {
          double logit = 0;
          for (size_t i = 0; i < kCols; ++i) logit += in[0][t * kCols + i] * in[1][v * kCols + i];
          if (cap > 0) logit = cap * std::tanh(logit / cap);
          sum += std::exp(logit);
          if (static_cast<Token>(v) == targets[t]) of_target = logit;
        }
        nats += std::log(sum) - of_target;
      }
      return Doubles{double{kScale} * nats};
    };
    const std::vector<Doubles> inputs = {doubles_of(h), doubles_of(head)};
    ex.tape = &tape;
    const Loss loss = cross_entropy(
        ex, config,
        WeightMatrix{
            .rows = kVocab, .cols = kCols, .data = reinterpret_cast<std::byte*>(head.data)},
        h, targets, kScale);
    EXPECT_EQ(loss.tokens, 4);
    EXPECT_NEAR(loss.nats * kScale, definition(inputs)[0], 1e-6);
    Doubles got = doubles_of(tape.gradient(h));
    const Doubles of_head = doubles_of(tape.gradient(head));
    got.insert(got.end(), of_head.begin(), of_head.end());
    expect_gradients(inputs, definition, {1}, got, 2 * kVocab + 20);
  }
}

}  // namespace
}  // namespace lapidary
