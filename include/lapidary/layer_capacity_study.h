// room: study
// Which layers store what a model learns by heart: adapters of one rank learn the same data on the
// same base, on one layer at a time and on all, and the bits that each comes to hold are counted
// (after Morris et al., arXiv 2505.24832). docs/study.md defines the figures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lapidary/capacity_study.h"
#include "lapidary/progress.h"

namespace lapidary {

struct LayerCapacityOptions {
  std::filesystem::path folder;  // adapters and results
  std::filesystem::path model;
  // What is learnt, in any form that train() reads, longer documents in several sequences; empty:
  // tokens that are drawn uniformly from the model's vocabulary.
  std::filesystem::path data = {};
  int64_t sequences = 32;        // of the data, evenly spread; and as many that are not learnt, of
                                 // other documents where there are several
  std::vector<int> layers = {};  // those with an adapter of their own; empty: each
  int64_t rank = 4;
  int64_t steps = 300;
  // Given data may have shorter sequences.
  CapacityRecipe recipe = {.length = 32, .batch = 8, .learning_rate = 0.02, .weight_decay = 0};
  int threads = 0;  // adapters that are trained at once; 0: one per core
};

// One adapter.
struct LayerCapacityRun {
  static constexpr int kAllLayers = -1;
  int layer = kAllLayers;
  int64_t parameters = 0;  // of the adapter
  // What the data hold before: the entropy of drawn tokens, or -log2 p of the base.
  double data_bits = 0;
  double memorized_bits = 0;  // of these, sum over the sequences, each at least 0
  double control_bits = 0;    // the same of as many sequences that were not learnt
  double loss = 0;            // nats per token over the data, at the end
  int64_t steps = 0;
  double seconds = 0;  // of training, by one thread
  double bits_per_parameter() const { return memorized_bits / static_cast<double>(parameters); }
};

struct LayerCapacityStudy {
  LayerCapacityOptions options;
  int vocabulary = 0;
  int64_t tokens = 0;                  // predicted ones of the data
  std::vector<LayerCapacityRun> runs;  // by layer; all layers together last
};

// Trains what is not yet in the folder, several adapters at once, one thread each; the results do
// not depend on how many. A study that was stopped or killed goes on where it was. `watch` counts
// tokens. Throws Error{kUsage} for options, Error{kInput} for a folder of other options, for data
// of too few sequences, as open_data() and train(), Error{kInterrupted}.
LayerCapacityStudy study_layer_capacity(const LayerCapacityOptions& options,
                                        const Watch& watch = {});

}  // namespace lapidary
