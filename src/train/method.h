// What is trained, by method: which values, and what is done to them between steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lapidary/train.h"

#include "gemma/load.h"
#include "gemma/set_block.h"
#include "train/lora.h"
#include "train/optimizer.h"
#include "train/parameter.h"
#include "train/trained_matrix.h"

namespace lapidary {

class Method {
 public:
  virtual ~Method() = default;

  // What the optimizer moves now.
  virtual std::span<const Parameter> parameters() const = 0;
  // Called before step `step`, from 0, and when a run is taken up there. True when the parameters
  // are others than before: the optimizer and the tape are made anew.
  virtual bool choose(int64_t /*step*/) { return false; }
  // Called when `steps` steps are complete: the time to merge.
  virtual void end(int64_t /*steps*/, Optimizer& /*optimizer*/, Executor& /*ex*/) {}
  // Called with the gradients of a step, before the optimizer sees them.
  virtual void gradients(int64_t /*step*/, Executor& /*ex*/) {}

  // What becomes of the model's matrices, embeddings left out. Valid while the method lives.
  virtual std::vector<TrainedMatrix> matrices() const = 0;
  // How often, in `steps` steps, factors were merged into the weights and begun anew.
  virtual int64_t merges(int64_t /*steps*/) const { return 0; }

  // All values that a step may change, for saving and restoring.
  virtual std::vector<StateArray> state() = 0;
  // Whether the result is small beside the state, so that it is written with each.
  virtual bool small() const { return false; }
  // Puts what was trained into the run folder. Returns the path.
  virtual std::filesystem::path write(const std::filesystem::path& run, Executor& ex) = 0;
};

// What of the options all methods read alike.
LoraOptions lora_options(const TrainOptions& options);
bool is_embedding(std::string_view tensor);
// Whether relora and rank1 move the tensor, by its own gradient, beside the matrices they adapt.
bool trained_beside(const TrainOptions& options, std::string_view tensor);

// The method that the options name, on the model's weights, which it changes and which must outlive
// it. `set_block` is what is written about the training beside them.
std::unique_ptr<Method> make_method(const TrainOptions& options, Model& model,
                                    const std::filesystem::path& folder,
                                    const std::optional<SetBlockTraining>& set_block = {});

}  // namespace lapidary
