// room: blend
// One adapter made of several, and how much they are about the same.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/adapter.h"
#include "lapidary/progress.h"

namespace lapidary {

// With update_i = scale_i b_i a_i of adapter i and its weight w_i. docs/adapters.md has the
// formulas.
enum class BlendMethod {
  // Of whole updates: the sum of w_i update_i is exact, whatever the ranks.
  kCat,             // factors side by side
  kTaskArithmetic,  // the same, by the name under which weights may be negative to take away
  kSvd,             // the nearest sum of a smaller rank
  kSlerp,           // of two: along the arc between them
  // Of each factor for itself, as PEFT does: products have terms b_i a_j that no adapter had.
  kLinear,
  kTies,
  kDareLinear,
  kDareTies,
  kMagnitudePrune,
  // The same of each value of whole updates, and the nearest to that of a smaller rank.
  kTiesSvd,
  kDareLinearSvd,
  kDareTiesSvd,
  kMagnitudePruneSvd,
};
std::vector<const char*> blend_method_names();          // "cat", "task-arithmetic", ...
BlendMethod blend_method_named(std::string_view name);  // throws Error{kUsage}

struct BlendPart {
  std::filesystem::path adapter;
  double weight = 1;
  std::vector<double> layer_weights = {};  // where given, of layer i in place of `weight`
};

struct BlendOptions {
  BlendMethod method = BlendMethod::kCat;
  double density = 1;  // of TIES, DARE and pruning: the share of values that is kept
  int64_t rank = 0;    // of kSvd and k...Svd; 0: the largest of the adapters'
  uint64_t seed = 0;   // of DARE's choice
  // A JSON file: {"*.layers.0.*": [1, 0.5], ...}, factors of the weights, one per adapter, for the
  // matrices whose names fit the pattern; the first pattern that fits decides.
  std::filesystem::path layer_weights = {};
  AdapterFormat format = AdapterFormat::kPeft;  // or kMlx
  bool overwrite = false;
};

// How two adapters' updates of a matrix lie to each other.
struct AdapterOverlap {
  size_t a = 0, b = 0;  // among the parts
  std::string target;
  double norm_a = 0, norm_b = 0;  // of the updates, Frobenius
  double cosine = 0;              // between them; 0 where one is nothing
  // Cosines of the principal angles between what they can write (the column spaces of the updates)
  // and what they can read (the row spaces), largest first: as many as the smaller rank.
  std::vector<double> column_cosines = {}, row_cosines = {};
};

struct Blend {
  AdapterSummary result;
  std::vector<AdapterOverlap> overlaps;  // of each two parts, and each matrix that both have
  double truncated = 0;  // by a rank: the norm of what it leaves out, as a share of the whole's
};

// The overlaps alone. Throws Error{kInput} as describe_adapter, or when shapes differ.
std::vector<AdapterOverlap> compare_adapters(const std::vector<std::filesystem::path>& adapters);

// Writes the blend of the parts. A matrix that only some of them have is a blend of theirs. Throws
// Error{kUsage} for options that cannot be; Error{kInput} for adapters of different shapes, or
// ranks where the method needs one, a broken file, an `out` that is there; Error{kResource},
// Error{kInterrupted}.
Blend blend(const std::vector<BlendPart>& parts, const std::filesystem::path& out,
            const BlendOptions& options, const Watch& watch = {});

// Weights by what they do to the loss of a model on examples, as LoraHub (arXiv 2307.13269) finds
// them, of the exact sum of the updates: the minimum of
//
//   mean loss + penalty * sum |w_i|,   -1.5 <= w_i <= 1.5
//
// by proximal gradient descent, the loss having exact derivatives by the weights. With a weight for
// each layer, |w_i| is the mean over them. No result depends on the number of threads, or on
// chance.
struct FitOptions {
  std::filesystem::path model;
  std::filesystem::path data;  // as TrainOptions::data
  bool per_layer = false;
  double penalty = 0.05;
  int64_t passes = 40;            // over the data, at most
  int64_t sequence_length = 512;  // longer documents are refused
  int threads = 0;                // 0: one per core
};

struct BlendFit {
  // Of each adapter: one, or one for each layer, 0 where it has nothing there.
  std::vector<std::vector<double>> weights;
  double base_loss = 0;   // of the model alone; nats per target, as the others
  double given_loss = 0;  // with the parts' own weights
  double loss = 0;        // with those that were found
  int64_t targets = 0;
  int64_t passes = 0;
  bool settled = false;  // the next step would have moved no weight by 1e-3
};

// Begins with the parts' weights or with none, whichever is better, and never ends with worse.
// Throws Error{kUsage} for options and weights that cannot be; Error{kInput} for model, data and
// adapters, and a loss that is not finite; Error{kInterrupted}.
BlendFit fit_blend(const std::vector<BlendPart>& parts, const FitOptions& options,
                   const Watch& watch = {});

}  // namespace lapidary
