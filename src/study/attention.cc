// Sums over the weights of attention as they pass: the figures of attention_study.h.
#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include "lapidary/attention_study.h"
#include "lapidary/session.h"

#include "base/clock.h"
#include "base/fail.h"
#include "kernels/kernels.h"
#include "study/attention_patterns.h"
#include "study/head_sums.h"
#include "study/pattern_file.h"
#include "tensor/gemm.h"

namespace lapidary {

namespace {

// Of a layer, or of one block.
struct LayerSums {
  std::vector<HeadSums> heads;
  double shared = 0, shared_pairs = 0;  // cosines of pairs of heads that share keys, and others'
  double other = 0, other_pairs = 0;
  double sources = 0, rows = 0;  // of the rollout

  explicit LayerSums(size_t count) : heads(count) {}
  void add(const LayerSums& more) {
    for (size_t i = 0; i < heads.size(); ++i) heads[i].add(more.heads[i]);
    shared += more.shared;
    shared_pairs += more.shared_pairs;
    other += more.other;
    other_pairs += more.other_pairs;
    sources += more.sources;
    rows += more.rows;
  }
};

class Study {
 public:
  Study(const Engine& engine, std::span<const Token> tokens, const AttentionOptions& options)
      : config_(engine.config()),
        tokens_(tokens),
        sums_(static_cast<size_t>(config_.num_hidden_layers), LayerSums(heads())),
        before_(same_before(tokens)),
        patterns_(
            config_, engine.kv_type(), engine.threads(),
            [this](const PatternBlock& b, int64_t slot) { see(b, static_cast<size_t>(slot)); },
            [this](int layer, int64_t slots) { gather(layer, static_cast<size_t>(slots)); }) {
    blocks_.resize(static_cast<size_t>(length() / kPatternQueries + 2), LayerSums(heads()));
    // A power of two up to that of a block, so that blocks do not share a pixel.
    while (scale_ < kPatternQueries && (length() + scale_ - 1) / scale_ > options.picture_size)
      scale_ *= 2;
    size_ = (length() + scale_ - 1) / scale_;
    pictures_.resize(sums_.size() * heads() * static_cast<size_t>(size_ * size_));
    const int64_t places = options.rollout_tokens * options.rollout_tokens;
    while (length() * groups() > std::max(places, length())) group_ *= 2;
    rollout_.resize(sums_.size() * tokens.size() * static_cast<size_t>(groups()));
    if (const PatternSaving& saving = options.patterns; !saving.file.empty())
      file_.emplace(saving.file, config_, saving.layers, saving.heads, length(),
                    Metadata{{"model", engine.folder().filename().string()},
                             {"fingerprint", fmt::format("{:016x}", engine.fingerprint())}});
  }

  Tap tap() {
    return [this, look = patterns_.tap()](const Activation& a) {
      const Stopwatch clock;
      look(a);
      seconds_ += clock.seconds();
    };
  }

  void fill(AttentionStudy& result) const;
  void finish_file() {
    if (file_) file_->finish();
  }

 private:
  size_t heads() const { return static_cast<size_t>(config_.num_attention_heads); }
  int64_t length() const { return std::ssize(tokens_); }
  float* picture(int layer, int64_t head) {
    const size_t index = static_cast<size_t>(layer) * heads() + static_cast<size_t>(head);
    return pictures_.data() + index * static_cast<size_t>(size_ * size_);
  }
  int64_t groups() const { return (length() + group_ - 1) / group_; }
  float* rollout_row(int layer, int64_t query) {
    return rollout_.data() + (layer * length() + query) * groups();
  }

  void see(const PatternBlock& b, size_t slot);
  void add_similarity(const PatternBlock& b, LayerSums& sums) const;
  void draw(const PatternBlock& b, int64_t head);
  void roll_out(const PatternBlock& b, LayerSums& sums);
  void gather(int layer, size_t slots);

  const Config& config_;
  std::span<const Token> tokens_;
  std::vector<LayerSums> sums_;    // by layer
  std::vector<LayerSums> blocks_;  // of the chunk, by slot
  std::vector<int64_t> before_;
  int64_t scale_ = 1, size_ = 0;
  std::vector<float> pictures_;  // [layers, heads, size, size]
  int64_t group_ = 1;            // tokens that the rollout takes together
  std::vector<float> rollout_;   // [layers, T, groups()]
  std::optional<PatternFile> file_;
  double seconds_ = 0;
  AttentionPatterns patterns_;
};

void Study::add_similarity(const PatternBlock& b, LayerSums& sums) const {
  const int64_t group = config_.num_attention_heads / config_.num_key_value_heads;
  std::vector<double> lengths(static_cast<size_t>(b.heads));
  for (int64_t i = 0; i < b.queries; ++i) {
    const int64_t seen = b.first_query + i + 1 - b.first_key;
    if (b.first_query + i == 0) continue;
    const auto product = [&](int64_t g, int64_t h) {
      double sum = 0;
      for (int64_t k = 0; k < seen; ++k) sum += double{b.row(g, i)[k]} * b.row(h, i)[k];
      return sum;
    };
    for (int64_t h = 0; h < b.heads; ++h) {
      lengths[static_cast<size_t>(h)] = std::sqrt(product(h, h));
      for (int64_t g = 0; g < h; ++g) {
        const double cosine =
            product(g, h) / (lengths[static_cast<size_t>(g)] * lengths[static_cast<size_t>(h)]);
        const bool share = g / group == h / group;
        (share ? sums.shared : sums.other) += cosine;
        (share ? sums.shared_pairs : sums.other_pairs) += 1;
      }
    }
  }
}

void Study::draw(const PatternBlock& b, int64_t head) {
  float* pixels = picture(b.layer, head);
  for (int64_t i = 0; i < b.queries; ++i) {
    float* line = pixels + (b.first_query + i) / scale_ * size_;
    for (int64_t key = b.first_key; key <= b.first_query + i; ++key)
      line[key / scale_] = std::max(line[key / scale_], b.row(head, i)[key - b.first_key]);
  }
}

// after = (before + mean over heads of the weights * before) / 2, a row for each position. What
// positions are made of at first is themselves: of a long text, the group of tokens they are in.
void Study::roll_out(const PatternBlock& b, LayerSums& sums) {
  std::vector<float> mean(static_cast<size_t>(b.queries * b.keys));
  for (int64_t head = 0; head < b.heads; ++head)
    for (size_t i = 0; i < mean.size(); ++i)
      mean[i] += b.row(head, 0)[i] / static_cast<float>(b.heads);
  const int64_t groups = this->groups();
  if (b.layer == 0) {
    for (int64_t i = 0; i < b.queries; ++i)
      for (int64_t k = 0; k < b.keys; ++k)
        rollout_row(0, b.first_query + i)[(b.first_key + k) / group_] +=
            mean[static_cast<size_t>(i * b.keys + k)];
  } else {
    std::vector<float> scratch(static_cast<size_t>(gemm_scratch_floats(best_kernels())));
    const Strided weights(mean.data(), b.queries, b.keys, b.keys);
    const Strided before(rollout_row(b.layer - 1, b.first_key), b.keys, groups, groups);
    gemm(best_kernels(), weights, before, {rollout_row(b.layer, b.first_query), groups},
         Into::kOverwrite, scratch.data());
  }
  for (int64_t query = b.first_query; query < b.first_query + b.queries; ++query) {
    float* row = rollout_row(b.layer, query);
    for (int64_t g = 0; g < groups; ++g) {
      const float own =
          b.layer == 0 ? (g == query / group_ ? 1.0f : 0.0f) : rollout_row(b.layer - 1, query)[g];
      row[g] = (row[g] + own) / 2;
    }
    sums.sources += std::exp(entropy_of(row, query / group_ + 1));
    sums.rows += 1;
  }
}

void Study::see(const PatternBlock& b, size_t slot) {
  LayerSums& sums = blocks_[slot];
  sums = LayerSums(heads());
  for (int64_t head = 0; head < b.heads; ++head) {
    sums.heads[static_cast<size_t>(head)].add(b, head, before_);
    draw(b, head);
  }
  add_similarity(b, sums);
  roll_out(b, sums);
  if (file_) file_->take(b, slot);
}

void Study::gather(int layer, size_t slots) {
  for (size_t slot = 0; slot < slots; ++slot) sums_[static_cast<size_t>(layer)].add(blocks_[slot]);
  if (file_) file_->write(layer, slots);
}

void Study::fill(AttentionStudy& result) const {
  result.picture_size = size_;
  result.picture_scale = scale_;
  result.look_seconds = seconds_;
  for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
    const LayerSums& sums = sums_[static_cast<size_t>(layer)];
    for (size_t head = 0; head < heads(); ++head) {
      result.heads.push_back(sums.heads[head].figures(layer, static_cast<int>(head)));
      const size_t index = static_cast<size_t>(layer) * heads() + head;
      const auto begin = pictures_.begin() + static_cast<int64_t>(index) * size_ * size_;
      result.pictures.push_back({layer, static_cast<int>(head), {begin, begin + size_ * size_}});
    }
    LayerAttention of_layer{.layer = layer, .sliding = config_.is_sliding(layer)};
    if (sums.shared_pairs + sums.other_pairs > 0)
      of_layer.similarity = (sums.shared + sums.other) / (sums.shared_pairs + sums.other_pairs);
    if (sums.shared_pairs > 0) of_layer.shared_similarity = sums.shared / sums.shared_pairs;
    if (sums.other_pairs > 0) of_layer.other_similarity = sums.other / sums.other_pairs;
    if (sums.rows > 0) of_layer.rollout_sources = sums.sources / sums.rows;
    result.layers.push_back(of_layer);
  }
  result.rollout.assign(rollout_.end() - groups(), rollout_.end());
  result.rollout_group = group_;
}

}  // namespace

AttentionStudy study_attention(const std::shared_ptr<const Engine>& engine,
                               std::span<const Token> tokens, const AttentionOptions& options,
                               const Watch& watch) {
  if (tokens.size() < 2)
    fail("{} token{} given; attention needs at least two to look at", tokens.size(),
         tokens.size() == 1 ? "" : "s");
  if (options.picture_size < 1)
    fail_usage("picture_size: {} is not positive", options.picture_size);
  AttentionStudy result{.tokens = {tokens.begin(), tokens.end()}};
  Session session(engine, options.context);
  Study study(*engine, tokens, options);
  session.set_tap(study.tap());
  const Stopwatch clock;
  session.append(tokens, watch);
  result.seconds = clock.seconds();
  study.finish_file();
  study.fill(result);
  return result;
}

}  // namespace lapidary
