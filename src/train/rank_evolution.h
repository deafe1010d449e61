// What a training run makes of each matrix: how many directions its update has, and where they
// point, as the run goes on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/train.h"

#include "base/json.h"
#include "gemma/load.h"
#include "train/optimizer.h"
#include "train/spectrum.h"
#include "train/trained_matrix.h"
#include "train/update_cosine.h"

namespace lapidary {

class RankEvolution {
 public:
  // Opens the model's files again, for the weights that the run began with. `model`, which is
  // trained, and what the matrices view must outlive this.
  RankEvolution(const TrainOptions& options, const Model& model,
                std::vector<TrainedMatrix> matrices);

  // Every so many steps, and at the end.
  bool due(int64_t step) const;
  // To be held during a step that is due.
  std::unique_ptr<UpdateCosines> watch_step(Tape& tape) const;

  // A line of ranks.jsonl for each matrix, when `step` steps are complete; `cosines` are those of
  // watch_step().
  std::vector<OrderedJson> measure(int64_t step, int64_t merges, std::span<const double> cosines,
                                   ThreadPool& pool);

  // What the last measurement left for the next one. Valid while this lives.
  std::vector<StateArray> state();

 private:
  // One matrix, as the last measurement left it.
  struct Before {
    AlignedVector<float> update;       // [rows, cols], where values move;
    AdapterMatrix factors;             // where they do not
    AlignedVector<float> left, right;  // [directions_, rows or cols] of what the interval added
  };
  struct Ranks {
    std::vector<double> values;  // all singular values of the update, largest first
    double threshold = 0;        // rounding explains those below
    std::optional<double> left_angle = {}, right_angle = {};
  };
  Ranks of_values(size_t i, int64_t step);
  Ranks of_factors(size_t i);
  void compare(const SingularParts& interval, double threshold, Before& before, Ranks& ranks) const;

  int64_t every_, steps_;
  int64_t directions_;  // that are compared
  Model start_;
  std::vector<TrainedMatrix> matrices_;
  std::vector<const Linear*> started_;   // each in start_
  std::vector<const float*> addresses_;  // where the tape finds each
  std::vector<Before> before_;
};

}  // namespace lapidary
