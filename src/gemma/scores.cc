#include "gemma/scores.h"

#include <algorithm>
#include <cmath>

#include "tensor/gemm.h"

namespace lapidary {

Scoring::Scoring(const Config& config)
    : scale(static_cast<float>(1 / std::sqrt(config.query_pre_attn_scalar))),
      softcap(static_cast<float>(config.attn_logit_softcapping)) {}

void score_keys(const Kernels& kernels, const Scoring& scoring, Strided q, Strided k, float* scores,
                float* scratch) {
  gemm(kernels, q, k.transposed(), {scores, k.rows}, Into::kOverwrite, scratch);
  const int64_t size = q.rows * k.rows;
  for (int64_t i = 0; i < size; ++i) scores[i] *= scoring.scale;
  if (scoring.softcap > 0) kernels.softcap(scores, size, scoring.softcap);
}

void weigh_keys(const Kernels& kernels, const float* scores, int64_t keys, int64_t from, int64_t to,
                float* weights) {
  if (weights != scores) std::copy_n(scores + from, to - from, weights + from);
  std::fill_n(weights, from, 0.0f);
  kernels.softmax(weights + from, to - from);
  std::fill_n(weights + to, keys - to, 0.0f);
}

}  // namespace lapidary
