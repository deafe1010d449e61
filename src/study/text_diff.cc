// How two models of the same shapes read a text.
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "lapidary/model_diff.h"

#include "base/clock.h"
#include "base/fail.h"
#include "generate/divergence.h"
#include "generate/layer_walk.h"
#include "generate/logit_rows.h"
#include "study/attention_patterns.h"
#include "study/matrices.h"
#include "study/text_loss.h"

namespace lapidary {

namespace {

constexpr int64_t kSample = 512;                   // positions of CKA, at most
constexpr int64_t kKeptBytes = int64_t{64} << 20;  // logits of A that wait for those of B

using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Every stride-th row, less the mean of them, and their products with each other.
Eigen::MatrixXd sampled_gram(std::span<const float> stream, int64_t tokens) {
  const int64_t width = std::ssize(stream) / tokens, stride = (tokens + kSample - 1) / kSample;
  Rows rows((tokens + stride - 1) / stride, width);
  for (int64_t i = 0; i < rows.rows(); ++i)
    rows.row(i) = Eigen::Map<const Eigen::RowVectorXf>(stream.data() + i * stride * width, width)
                      .cast<double>();
  rows.rowwise() -= rows.colwise().mean().eval();
  return rows * rows.transpose();
}

double similarity_of(std::span<const float> a, std::span<const float> b, int64_t tokens) {
  const Eigen::MatrixXd x = sampled_gram(a, tokens), y = sampled_gram(b, tokens);
  const double sizes = x.norm() * y.norm();
  if (!std::isfinite(sizes)) fail("the stream is not finite");
  return sizes > 0 ? std::min(1.0, x.cwiseProduct(y).sum() / sizes) : 1;
}

// Mean over the tokens of |b - a| / |a|.
double distance_of(std::span<const float> a, std::span<const float> b, int64_t tokens) {
  const int64_t width = std::ssize(a) / tokens;
  double sum = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const Eigen::Map<const Eigen::VectorXf> x(a.data() + t * width, width);
    const Eigen::Map<const Eigen::VectorXf> y(b.data() + t * width, width);
    sum += (y - x).cast<double>().norm() / x.cast<double>().norm();
  }
  return sum / static_cast<double>(tokens);
}

// Weights of queries are compared key by key: both must see the same keys.
void check_same_windows(const Engine& a, const Engine& b) {
  const Config &x = a.config(), &y = b.config();
  for (int layer = 0; layer < x.num_hidden_layers; ++layer)
    if (x.is_sliding(layer) != y.is_sliding(layer) ||
        (x.is_sliding(layer) && x.sliding_window != y.sliding_window))
      fail("{} and {}: layer {} sees other keys in one than in the other", a.folder().string(),
           b.folder().string(), layer);
}

// The weights of two models' heads in one layer, compared chunk by chunk: A's of a chunk are kept
// until B's have come.
class AttentionChange {
 public:
  AttentionChange(const Engine& a, const Engine& b)
      : heads_(a.config().num_attention_heads),
        sums_(static_cast<size_t>(heads_)),
        a_(a.config(), a.kv_type(), a.threads(),
           [this](const PatternBlock& block, int64_t slot) { keep(block, slot); }),
        b_(b.config(), b.kv_type(), b.threads(),
           [this](const PatternBlock& block, int64_t slot) { compare(block, slot); }) {}

  Tap tap_a() { return a_.tap(); }
  Tap tap_b() { return b_.tap(); }
  // Adds up what the chunk had, in the order of the queries.
  void end_chunk() {
    for (const auto& [slot, slot_sums] : compared_)
      for (size_t head = 0; head < sums_.size(); ++head) sums_[head] += slot_sums[head];
    kept_.clear();
    compared_.clear();
  }
  std::vector<double> means(int64_t tokens) const {
    std::vector<double> means;
    for (const double sum : sums_) means.push_back(sum / static_cast<double>(tokens - 1));
    return means;
  }

 private:
  void keep(const PatternBlock& block, int64_t slot) {
    std::vector<float> weights(block.weights,
                               block.weights + block.heads * block.queries * block.keys);
    const std::lock_guard lock(mutex_);
    kept_[slot] = std::move(weights);
  }
  // Half the sum of |wB - wA| over the keys, summed over the block's queries. The first query of a
  // text sees itself alone, and adds nothing.
  void compare(const PatternBlock& block, int64_t slot) {
    const std::vector<float>& before = kept_.at(slot);
    const int64_t size = block.queries * block.keys;
    std::vector<double> slot_sums(sums_.size());
    for (int64_t head = 0; head < heads_; ++head)
      for (int64_t i = head * size; i < (head + 1) * size; ++i)
        slot_sums[static_cast<size_t>(head)] +=
            std::abs(double{block.weights[i]} - before[static_cast<size_t>(i)]) / 2;
    const std::lock_guard lock(mutex_);
    compared_[slot] = std::move(slot_sums);
  }

  int64_t heads_;
  std::vector<double> sums_;
  std::mutex mutex_;  // of the maps, while a chunk is being weighed
  std::map<int64_t, std::vector<float>> kept_;
  std::map<int64_t, std::vector<double>> compared_;
  AttentionPatterns a_, b_;
};

LayerDiff pass(int layer, LayerWalk& a, LayerWalk& b, const Engine& engine_a,
               const Engine& engine_b, const Watch& watch) {
  AttentionChange change(engine_a, engine_b);
  a.begin(layer);
  b.begin(layer);
  while (a.run_chunk(change.tap_a())) {
    b.run_chunk(change.tap_b());
    change.end_chunk();
    watch.throw_if_stopped();
  }
  return {.layer = layer,
          .sliding = engine_a.config().is_sliding(layer),
          .stream = distance_of(a.stream(), b.stream(), a.tokens()),
          .similarity = similarity_of(a.stream(), b.stream(), a.tokens()),
          .attention = change.means(a.tokens())};
}

void compare_predictions(const Engine& a, const Engine& b, std::span<const float> stream_a,
                         std::span<const float> stream_b, std::span<const Token> tokens,
                         const Watch& watch, TextDiff& diff) {
  const auto vocabulary = static_cast<size_t>(a.config().vocab_size);
  const size_t width = stream_a.size() / tokens.size(), predicted = tokens.size() - 1;
  const size_t most = std::clamp<size_t>(kKeptBytes / (vocabulary * sizeof(float)), 1, predicted);
  std::vector<float> kept(most * vocabulary);
  std::vector<RowComparison> rows(predicted);
  std::vector<double> nll_a(predicted), nll_b(predicted);  // of the text's tokens
  for (size_t done = 0; done < predicted; done += most) {
    watch.throw_if_stopped();
    const size_t count = std::min(most, predicted - done);
    const auto kept_row = [&](int64_t i) {
      return std::span(kept).subspan(static_cast<size_t>(i) * vocabulary, vocabulary);
    };
    a.read_stream(stream_a.subspan(done * width, count * width),
                  [&](int64_t i, std::span<const float> logits) {
                    std::ranges::copy(logits, kept_row(i).begin());
                  });
    b.read_stream(stream_b.subspan(done * width, count * width),
                  [&](int64_t i, std::span<const float> logits) {
                    const size_t row = done + static_cast<size_t>(i);
                    const auto next = static_cast<size_t>(tokens[row + 1]);
                    ThreadPool alone(1);  // the rows are shared out
                    rows[row] = compare_rows(kept_row(i), logits, alone);
                    nll_a[row] = log_sum_exp(kept_row(i)) - kept_row(i)[next];
                    nll_b[row] = log_sum_exp(logits) - logits[next];
                  });
  }
  const auto share = 1 / static_cast<double>(predicted);
  for (size_t i = 0; i < predicted; ++i) {
    const RowComparison& c = rows[i];
    if (!std::isfinite(nll_a[i] + nll_b[i] + c.kld)) fail("logits are not finite");
    diff.nll_a += share * nll_a[i];
    diff.nll_b += share * nll_b[i];
    diff.kld += share * c.kld;
    diff.top1 += c.top_a == c.top_b ? share : 0;
    diff.gain.push_back(nll_b[i] - nll_a[i]);
  }
  diff.predicted = static_cast<int64_t>(predicted);
}

}  // namespace

TextDiff diff_text(const std::shared_ptr<const Engine>& a, const std::shared_ptr<const Engine>& b,
                   std::span<const Token> tokens, const Watch& watch) {
  check_predicts(tokens);
  check_same_shapes(*a, *b);
  check_same_windows(*a, *b);
  const Stopwatch clock;
  LayerWalk walk_a(a, tokens), walk_b(b, tokens);
  TextDiff diff;
  const int layers = a->config().num_hidden_layers;
  for (int layer = 0; layer < layers; ++layer) {
    diff.layers.push_back(pass(layer, walk_a, walk_b, *a, *b, watch));
    watch.report(layer + 1, layers + 1);
  }
  compare_predictions(*a, *b, walk_a.stream(), walk_b.stream(), tokens, watch, diff);
  watch.report(layers + 1, layers + 1);
  diff.seconds = clock.seconds();
  return diff;
}

std::vector<double> swap_layers(const std::shared_ptr<const Engine>& a,
                                const std::shared_ptr<const Engine>& b,
                                std::span<const Token> tokens, const Watch& watch) {
  check_predicts(tokens);
  check_same_shapes(*a, *b);
  LayerWalk walk_a(a, tokens), walk_b(b, tokens);
  std::vector<double> losses;
  const int layers = a->config().num_hidden_layers;
  for (int swapped = 0; swapped < layers; ++swapped) {
    const std::vector<float> door(walk_a.stream().begin(), walk_a.stream().end());
    walk_b.set_stream(door);
    walk_b.run(swapped, {}, watch);
    walk_a.set_stream(walk_b.stream());
    for (int layer = swapped + 1; layer < layers; ++layer) walk_a.run(layer, {}, watch);
    losses.push_back(text_loss(*a, walk_a.stream(), tokens).mean());
    walk_a.set_stream(door);
    walk_a.run(swapped, {}, watch);
    watch.report(swapped + 1, layers);
  }
  return losses;
}

}  // namespace lapidary
