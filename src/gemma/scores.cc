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
  finish_scores(kernels, scoring, scores, q.rows * k.rows);
}

void finish_scores(const Kernels& kernels, const Scoring& scoring, float* scores, int64_t size) {
  for (int64_t i = 0; i < size; ++i) scores[i] *= scoring.scale;
  if (scoring.softcap > 0) kernels.softcap(scores, size, scoring.softcap);
}

void weigh_keys(const Kernels& kernels, const float* scores, int64_t keys, int64_t from, int64_t to,
                float* weights) {
  weigh_keys(kernels, scores, keys, {from, to}, {}, weights);
}

// The softmax is over values that lie together: the second range moves up to the first, and back.
void weigh_keys(const Kernels& kernels, const float* scores, int64_t keys, KeyRange first,
                KeyRange second, float* weights) {
  float* const joined = weights + first.first;
  float* const joint = joined + first.size();
  if (weights != scores) std::copy(scores + first.first, scores + first.end, joined);
  if (joint != scores + second.first) std::copy(scores + second.first, scores + second.end, joint);
  kernels.softmax(joined, first.size() + second.size());
  std::fill(weights, joined, 0.0f);
  if (second.size() == 0) second = {first.end, first.end};
  std::fill(weights + second.end, weights + keys, 0.0f);
  if (first.end == second.first) return;
  std::copy_backward(joint, joint + second.size(), weights + second.end);
  std::fill(joint, weights + second.first, 0.0f);
}

}  // namespace lapidary
