// Running a model on the calibration text layer by layer, and what that says of the inputs of its
// matrices.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "lapidary/token.h"
#include "lapidary/tokenizer.h"

#include "base/aligned_vector.h"
#include "gemma/load.h"
#include "gemma/model.h"

namespace lapidary {

constexpr int64_t kCalibrationWindow = 256;  // positions, <bos> included

using Windows = std::vector<std::vector<Token>>;

// At most `tokens` of the text in windows that each begin with <bos>; where it has more, windows
// that the seed draws, in the text's order. Throws Error{kInput} for a text without tokens.
Windows calibration_windows(const Tokenizer& tokenizer, std::string_view text, int64_t tokens,
                            uint64_t seed);
int64_t count_tokens(const Windows& windows);

// What the matrices that share an input see of it.
class InputStatistics {
 public:
  // Of `total` rows at most kSample are kept, evenly spread.
  InputStatistics(int64_t cols, int64_t total);
  void add(Matrix rows);

  std::vector<float> magnitude() const;  // [K] mean of |x|
  std::vector<float> square() const;     // [K] mean of x^2
  Matrix sample() { return {sample_.data(), kept_, cols_}; }

 private:
  static constexpr int64_t kSample = 256;
  int64_t cols_, stride_;
  int64_t seen_ = 0, kept_ = 0;
  std::vector<double> magnitude_, square_;  // [K] sums
  AlignedVector<float> sample_;             // [kSample, K]
};

// The residual stream of all windows, between two layers.
class ResidualStream {
 public:
  // After the embedding.
  ResidualStream(const Config& config, const Weights& weights, Windows windows, Executor& executor);
  static int64_t bytes(const Config& config, int64_t tokens);

  // Takes every window through layer `layer` with the weights given; `observer` as State's.
  void run(int layer, const LayerWeights& weights, const Observer& observer = {});
  // [T, V] from the stream after the last layer, which the final norm then is in place of.
  std::vector<float> logits();

  const AlignedVector<float>& values() const { return x_; }
  void set_values(const AlignedVector<float>& values) { x_ = values; }
  int64_t tokens() const { return std::ssize(x_) / config_.hidden_size; }

 private:
  Matrix rows(int64_t first, int64_t count);

  const Config& config_;
  const Weights& weights_;
  Windows windows_;
  Executor& executor_;
  State state_;
  std::shared_ptr<KvBlockPool> pool_;
  AlignedVector<float> x_;  // [T, D]
};

}  // namespace lapidary
