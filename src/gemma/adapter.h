// Low-rank adapters: what they add to a model's matrices, by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/aligned_vector.h"
#include "gemma/model.h"
#include "gemma/set_block.h"

namespace lapidary {

// Adds scale * b a to one matrix [N, K]; with DoRA its rows have the lengths `magnitude` then.
struct AdapterMatrix {
  std::string target;  // canonical name without ".weight": "model.layers.0.self_attn.q_proj"
  int64_t rank = 0;
  double scale = 1;                        // alpha / rank, or alpha / sqrt(rank)
  AlignedVector<float> a = {};             // [rank, K]
  AlignedVector<float> b = {};             // [N, rank]
  AlignedVector<float> magnitude = {};     // [N], or empty without DoRA
  AlignedVector<float> inverse_norm = {};  // [N], of the matrix it is attached to: see LowRank

  bool dora() const { return !magnitude.empty(); }
  int64_t values() const { return std::ssize(a) + std::ssize(b) + std::ssize(magnitude); }
};

struct Adapter {
  std::vector<AdapterMatrix> matrices;  // in the order of visit_tensors
  // Where it was trained on set blocks; a GGUF file has no place for that.
  std::optional<SetBlockTraining> set_block = {};
};

// Whether it is of DoRA.
bool has_magnitudes(const Adapter& adapter);

// The matrices of a layer that adapters can have, by their names there: "self_attn.q_proj", ...
std::vector<std::string> adaptable_matrices();
// Rows and columns of one of them.
std::pair<int64_t, int64_t> adaptable_shape(const Config& config, std::string_view name);

// Lets a model's matrices add the adapter, `strength` times, to what they compute. Its factors
// must outlive the weights' use; the adapter itself may be moved. Throws Error{kInput} listing
// every target that the model has not, and every one whose shape does not fit.
void attach(Adapter& adapter, double strength, const Config& config, Weights& weights);

// Of DoRA: the lengths of the rows, after the factors changed. Costs what `rank` tokens of a prompt
// cost in these matrices. Throws Error{kInput} for a row of no length.
void measure_rows(Adapter& adapter, const Config& config, const Weights& weights);

// Row `row` of what products multiply by, [K]: the stored weights and what adapters add to them.
void effective_row(const Linear& matrix, int64_t row, float* values);

}  // namespace lapidary
