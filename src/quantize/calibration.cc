#include "quantize/calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/fail.h"
#include "base/rng.h"

namespace lapidary {

Windows calibration_windows(const Tokenizer& tokenizer, std::string_view text, int64_t tokens,
                            uint64_t seed) {
  const std::vector<Token> ids = tokenizer.encode(text);
  if (ids.empty()) fail("calibration text: has no tokens");
  constexpr int64_t kStep = kCalibrationWindow - 1;
  const int64_t all = (std::ssize(ids) + kStep - 1) / kStep;
  std::vector<int64_t> chosen(static_cast<size_t>(all));
  std::iota(chosen.begin(), chosen.end(), 0);
  const int64_t wanted = (std::min(tokens, std::ssize(ids)) + kStep - 1) / kStep;
  const CounterRng rng(seed);
  for (int64_t i = 0; wanted < all && i < wanted; ++i) {
    const auto other = i + static_cast<int64_t>(rng.bits(static_cast<uint64_t>(i)) %
                                                static_cast<uint64_t>(all - i));
    std::swap(chosen[static_cast<size_t>(i)], chosen[static_cast<size_t>(other)]);
  }
  chosen.resize(static_cast<size_t>(wanted));
  std::ranges::sort(chosen);
  Windows windows;
  int64_t left = tokens;
  for (const int64_t index : chosen) {
    const int64_t first = index * kStep;
    const int64_t count = std::min({kStep, std::ssize(ids) - first, left});
    std::vector<Token> window = {tokenizer.bos()};
    window.insert(window.end(), ids.begin() + first, ids.begin() + first + count);
    windows.push_back(std::move(window));
    left -= count;
  }
  return windows;
}

int64_t count_tokens(const Windows& windows) {
  int64_t count = 0;
  for (const auto& window : windows) count += std::ssize(window);
  return count;
}

InputStatistics::InputStatistics(int64_t cols, int64_t total)
    : cols_(cols),
      stride_((total + kSample - 1) / kSample),
      magnitude_(static_cast<size_t>(cols)),
      square_(static_cast<size_t>(cols)),
      sample_(static_cast<size_t>(std::min(kSample, total) * cols)) {}

void InputStatistics::add(Matrix rows) {
  LAPIDARY_CHECK(rows.cols == cols_, "rows of another width");
  for (int64_t t = 0; t < rows.rows; ++t, ++seen_) {
    const float* x = rows.row(t);
    for (size_t k = 0; k < magnitude_.size(); ++k) {
      const double value = x[k];
      magnitude_[k] += std::abs(value);
      square_[k] += value * value;
    }
    if (seen_ % stride_ == 0) std::copy_n(x, cols_, sample_.data() + kept_++ * cols_);
  }
}

std::vector<float> InputStatistics::magnitude() const {
  std::vector<float> mean;
  for (const double sum : magnitude_)
    mean.push_back(static_cast<float>(sum / static_cast<double>(seen_)));
  return mean;
}

std::vector<float> InputStatistics::square() const {
  std::vector<float> mean;
  for (const double sum : square_)
    mean.push_back(static_cast<float>(sum / static_cast<double>(seen_)));
  return mean;
}

ResidualStream::ResidualStream(const Config& config, const Weights& weights, Windows windows,
                               Executor& executor)
    : config_(config),
      weights_(weights),
      windows_(std::move(windows)),
      executor_(executor),
      state_(config, kCalibrationWindow),
      pool_(std::make_shared<KvBlockPool>(KvCache::block_bytes(config, KvType::kF32))),
      x_(static_cast<size_t>(count_tokens(windows_) * config.hidden_size)) {
  int64_t first = 0;
  for (const auto& window : windows_) {
    const int64_t count = std::ssize(window);
    embed(executor_, window, weights.embed_tokens, config.embed_scale(), rows(first, count));
    first += count;
  }
}

int64_t ResidualStream::bytes(const Config& config, int64_t tokens) {
  return tokens * config.hidden_size * int64_t{sizeof(float)} +
         State::bytes(config, kCalibrationWindow) +
         kCalibrationWindow / kKvBlock * KvCache::block_bytes(config, KvType::kF32);
}

Matrix ResidualStream::rows(int64_t first, int64_t count) {
  return Matrix{x_.data(), tokens(), config_.hidden_size}.rows_from(first, count);
}

void ResidualStream::run(int layer, const LayerWeights& weights, const Observer& observer) {
  state_.observer = observer;
  int64_t first = 0;
  for (const auto& window : windows_) {
    KvCache cache(config_, KvType::kF32, pool_);
    const Segment segment{&cache, std::ssize(window)};
    state_.place(executor_, {&segment, 1});
    const Matrix x = rows(first, segment.rows);
    std::copy_n(x.data, x.size(), state_.x.data);
    layer_forward(executor_, config_, weights, layer, {&segment, 1}, state_);
    std::copy_n(state_.x.data, x.size(), x.data);
    first += segment.rows;
  }
}

std::vector<float> ResidualStream::logits() {
  std::vector<float> logits(static_cast<size_t>(tokens() * config_.vocab_size));
  const Matrix x = rows(0, tokens());
  rms_norm(executor_, x, weights_.norm, config_.rms_norm_eps, x);
  head(executor_, config_, weights_, x, {logits.data(), x.rows, config_.vocab_size});
  return logits;
}

}  // namespace lapidary
