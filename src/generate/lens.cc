// The residual stream read as logits, for studies.
#include <algorithm>

#include "base/fail.h"
#include "generate/engine_impl.h"

namespace lapidary {

void Engine::read_stream(std::span<const float> rows,
                         const std::function<void(int64_t, std::span<const float>)>& fn) const {
  const Config& config = impl_->model.config;
  const int64_t d = config.hidden_size, count = std::ssize(rows) / d;
  LAPIDARY_CHECK(count * d == std::ssize(rows), "whole rows of the residual stream");
  const std::lock_guard lock(impl_->step_mutex);
  Executor& ex = *impl_->executor;
  ex.pool().use(impl_->threads_batch);
  State& state = *impl_->state;
  constexpr int64_t kBytes = int64_t{64} << 20;  // of logits: enough rows that the head is not read
                                                 // more often than it is multiplied with
  const int64_t most = std::clamp<int64_t>(kBytes / (config.vocab_size * int64_t{sizeof(float)}), 1,
                                           state.max_rows());
  for (int64_t done = 0; done < count; done += most) {
    state.begin(std::min(count - done, most));
    std::copy_n(rows.data() + done * d, state.x.size(), state.x.data);
    rms_norm(ex, state.x, impl_->model.weights.norm, config.rms_norm_eps, state.h);
    const int64_t n = state.h.rows, vocab = config.vocab_size;
    const Matrix logits{ex.logits(n * vocab), n, vocab};
    head(ex, config, impl_->model.weights, state.h, logits);
    ex.pool().parallel_for(n, [&](int64_t first, int64_t last, int) {
      for (int64_t i = first; i < last; ++i)
        fn(done + i, {logits.row(i), static_cast<size_t>(vocab)});
    });
  }
}

std::vector<float> Engine::logit_direction(Token token) const {
  const Weights& weights = impl_->model.weights;
  check_ids({&token, 1}, impl_->model.config.vocab_size);
  std::vector<float> direction(weights.norm.size());
  best_kernels().dequantize_row(weights.lm_head, token, direction.data());
  for (size_t i = 0; i < direction.size(); ++i) direction[i] *= weights.norm[i];
  return direction;
}

std::vector<float> Engine::mean_logit_direction() const {
  constexpr int64_t kPart = 4096;  // rows that are added up by themselves, whatever the threads
  const Weights& weights = impl_->model.weights;
  const int64_t rows = weights.lm_head.rows, parts = (rows + kPart - 1) / kPart;
  const size_t d = weights.norm.size();
  std::vector<std::vector<double>> sums(static_cast<size_t>(parts), std::vector<double>(d));
  const std::lock_guard lock(impl_->step_mutex);
  impl_->executor->pool().use(impl_->threads_batch);
  impl_->executor->pool().parallel_for(parts, [&](int64_t first, int64_t last, int) {
    std::vector<float> row(d);
    for (int64_t part = first; part < last; ++part)
      for (int64_t i = part * kPart; i < std::min(rows, (part + 1) * kPart); ++i) {
        best_kernels().dequantize_row(weights.lm_head, i, row.data());
        std::vector<double>& sum = sums[static_cast<size_t>(part)];
        for (size_t k = 0; k < d; ++k) sum[k] += double{row[k]};
      }
  });
  std::vector<float> mean(d);
  for (size_t k = 0; k < d; ++k) {
    double sum = 0;
    for (const auto& part : sums) sum += part[k];
    mean[k] = static_cast<float>(sum / static_cast<double>(rows) * double{weights.norm[k]});
  }
  return mean;
}

}  // namespace lapidary
