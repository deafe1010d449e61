// Low-rank adapters: what they add to a model's matrices, by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/aligned_vector.h"
#include "gemma/model.h"

namespace lapidary {

// Adds scale * b a to one matrix [N, K].
struct AdapterMatrix {
  std::string target;  // canonical name without ".weight": "model.layers.0.self_attn.q_proj"
  int64_t rank = 0;
  double scale = 1;             // alpha / rank, or alpha / sqrt(rank)
  AlignedVector<float> a = {};  // [rank, K]
  AlignedVector<float> b = {};  // [N, rank]
};

struct Adapter {
  std::vector<AdapterMatrix> matrices;  // in the order of visit_tensors
};

// The matrices of a layer that adapters can have, by their names there: "self_attn.q_proj", ...
std::vector<std::string> adaptable_matrices();
// Rows and columns of one of them.
std::pair<int64_t, int64_t> adaptable_shape(const Config& config, std::string_view name);

// Lets a model's matrices add the adapter, `strength` times, to what they compute. Its factors
// must outlive the weights' use; the adapter itself may be moved. Throws Error{kInput} listing
// every target that the model has not, and every one whose shape does not fit.
void attach(const Adapter& adapter, double strength, const Config& config, Weights& weights);

}  // namespace lapidary
