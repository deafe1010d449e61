// A head's queries against its keys by products of matrices: for whole timelines (attend_within.cc)
// and for a look at what attention weighs.
#pragma once

#include <cstdint>

#include "lapidary/config.h"

#include "gemma/seen_keys.h"
#include "kernels/kernels.h"
#include "tensor/matrix.h"

namespace lapidary {

struct Scoring {
  float scale;
  float softcap;  // 0: none

  explicit Scoring(const Config& config);
};

// scores[queries, keys] = softcap(scale q kᵀ) for q [queries, d] and k [keys, d]. `scratch` has
// gemm_scratch_floats().
void score_keys(const Kernels& kernels, const Scoring& scoring, Strided q, Strided k, float* scores,
                float* scratch);
// The same of products that were made before: scores[size] = softcap(scale scores).
void finish_scores(const Kernels& kernels, const Scoring& scoring, float* scores, int64_t size);

// The softmax of a row's scores [from, to), and 0 for the other keys. In place, if wanted.
void weigh_keys(const Kernels& kernels, const float* scores, int64_t keys, int64_t from, int64_t to,
                float* weights);
// The same of the scores in two ranges, the second behind the first, or empty.
void weigh_keys(const Kernels& kernels, const float* scores, int64_t keys, KeyRange first,
                KeyRange second, float* weights);

}  // namespace lapidary
