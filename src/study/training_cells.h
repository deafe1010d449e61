// What studies share that train many small models: the folder that they go on in, how a model is
// trained, and the threads that share the work.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/capacity_study.h"
#include "lapidary/progress.h"
#include "lapidary/token.h"
#include "lapidary/train.h"

#include "base/json.h"
#include "gemma/adapter.h"
#include "gemma/load.h"
#include "io/folder_lock.h"
#include "train/sequence_reading.h"

namespace lapidary {

// Gains below this share are none: what is measured has reached a plateau.
constexpr double kPlateauGain = 0.03;
// What `more` is above `less`, as a share; all of it where that is none.
double gain(double more, double less);

// Makes the folder, and writes the options to its options.json; nobody else writes to it while the
// lock lives. Throws Error{kInput} where it was begun with others, `free` ones aside, or another
// process is at it, Error{kUsage} where it has something else in it, Error{kResource} where it
// cannot be made.
[[nodiscard]] FolderLock begin_study(const std::filesystem::path& folder,
                                     const OrderedJson& options,
                                     std::initializer_list<std::string_view> free);

// Throws Error{kUsage} naming the flag of what is out of range; `length` is the least.
void check_recipe(const CapacityRecipe& recipe, int64_t length);
// Adds its fields to the options of a study.
void put_recipe(OrderedJson& options, const CapacityRecipe& recipe);
// What is said of it on a page, after how often or how long.
std::string recipe_text(const CapacityRecipe& recipe);

// Sequences of a step.
int64_t step_sequences(const CapacityRecipe& recipe, int64_t sequences);

// By one thread in f32, on so many sequences, with a cosine; every weight, if not told otherwise.
// `data` says what the sequences are, for the run's configuration. Goes on with a run that is in
// the folder.
TrainOptions training_of(const CapacityRecipe& recipe, std::string_view data,
                         const std::filesystem::path& model, const std::filesystem::path& run,
                         int64_t sequences, int64_t steps);

// Part of a study's work, for one thread.
struct TrainingCell {
  int64_t tokens = 0;  // that its training reads
  double weight = 1;   // of a token, in time
  std::function<void(const Watch&)> run;
};
// Each of the threads, or one per core for 0, takes the longest cell that is left. The first error
// stops all, and is thrown when they have. `watch` counts tokens. Throws Error{kInterrupted}.
void run_cells(std::span<const TrainingCell> cells, int threads, const Watch& watch);

// Reads sequences with a model and maybe an adapter, in the arithmetic of training, by one thread.
class SequenceReader {
 public:
  SequenceReader(const std::filesystem::path& model, int64_t length,
                 const std::filesystem::path& adapter = {});
  SequenceReader(const SequenceReader&) = delete;
  SequenceReader& operator=(const SequenceReader&) = delete;

  SequenceReading read(const Document& document) { return read_sequence(backprop_, document); }
  // All tokens but the first count.
  SequenceReading read(const std::vector<Token>& tokens);

 private:
  Model model_;
  Adapter adapter_;
  Executor ex_;
  Backprop backprop_;
};

}  // namespace lapidary
