// room: study
// How many bits a model of Gemma's shape holds: models learn random tokens by heart, and what they
// know of them is counted (Morris et al., arXiv 2505.24832). docs/study.md defines the figures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "lapidary/config.h"
#include "lapidary/progress.h"

namespace lapidary {

// How each model of a study of capacity is trained.
struct CapacityRecipe {
  int64_t length = 64;  // tokens of a sequence, the first of which is not predicted
  int64_t batch = 64;   // sequences of a step, or all where there are fewer
  std::string optimizer = "muon";
  double learning_rate = 0.05;  // the highest
  double weight_decay = 0.1;
  uint64_t seed = 0;  // of weights, data and its order
};

struct CapacityOptions {
  std::filesystem::path folder;                         // models, data sets and results
  std::vector<int64_t> sizes = {52000, 75000, 100000};  // parameters, about, embeddings included
  // Entropies of the data sets, in bits per parameter.
  std::vector<double> loads = {1, 4, 4.5};
  int layers = 2;
  int vocabulary = 1024;
  int64_t epochs = 1600;
  CapacityRecipe recipe;
  int threads = 0;  // models that are trained at once; 0: one per core
};

// One model, trained on one data set.
struct CapacityRun {
  int64_t size = 0;  // of CapacityOptions::sizes
  double load = 0;   // of CapacityOptions::loads
  int64_t parameters = 0;
  int64_t sequences = 0;
  int64_t tokens = 0;         // predicted ones of the data set
  double data_bits = 0;       // its entropy: tokens times log2 of the vocabulary
  double memorized_bits = 0;  // sum over the sequences, each at least 0
  double control_bits = 0;    // the same of as many sequences that the model has never seen
  int64_t epochs = 0, steps = 0;
  double loss = 0;     // nats per token over the data set, at the end
  double seconds = 0;  // of training, by one thread
  double bits_per_parameter() const { return memorized_bits / static_cast<double>(parameters); }
};

// What the runs of one size say together.
struct CapacityOfSize {
  int64_t parameters = 0;
  double capacity_bits = 0;  // the most that a run of this size holds
  // How much more the largest data set brings than the one before, as a share, where there is one,
  // and training on it for as long as was done than half as long.
  std::optional<double> gain_of_data = {};
  double gain_of_training = 0;
  // Whether those were found, and are small; of data, that grew enough to tell.
  bool data_plateau = false, training_plateau = false;
  double bits_per_parameter() const { return capacity_bits / static_cast<double>(parameters); }
};

struct CapacityStudy {
  CapacityOptions options;
  std::vector<CapacityRun> runs;    // by size, then load
  std::vector<CapacityRun> halves;  // of each size, its largest data set for half the epochs
  std::vector<CapacityOfSize> sizes;
  // Least squares of capacity = bits_per_parameter * parameters, and the largest distance of a
  // size from it, as a share.
  double bits_per_parameter = 0;
  double largest_residual = 0;
};

// A shape of Gemma 3 with about so many parameters. Throws Error{kUsage} for fewer than vocabulary
// and layers take.
Config capacity_shape(int64_t parameters, int vocabulary, int layers);

// Uniform tokens as a function of the seed and the stream.
std::vector<std::vector<Token>> random_sequences(int64_t count, int64_t length, int vocabulary,
                                                 uint64_t seed, uint64_t stream);

// Trains what is not yet in the folder, several models at once, one thread each; the results do not
// depend on how many. A study that was stopped or killed goes on where it was. `watch` counts
// tokens. Throws Error{kUsage} for options, Error{kInput} for a folder of other options or what
// train() throws, Error{kInterrupted}.
CapacityStudy study_capacity(const CapacityOptions& options, const Watch& watch = {});

}  // namespace lapidary
