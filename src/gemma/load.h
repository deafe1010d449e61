// From a checkpoint's tensors to a model's weights.
#pragma once

#include <filesystem>

#include "gemma/model.h"
#include "io/checkpoint.h"

namespace lapidary {

// A model folder, opened. The weights' matrices point into the checkpoint's mapped files.
struct Model {
  Config config;
  Checkpoint checkpoint;
  Weights weights;
  DType dtype = DType::kF32;   // of the embedding's values or, quantised, of its scales
  int64_t parameters = 0;      // weights of the text model, a tied embedding once
  int64_t vision_tensors = 0;  // of the file, left out
};

// Reads the config and opens the weights. Every tensor of the files is accounted for: throws
// Error{kInput} naming those that are missing, surplus, of the wrong shape or of a type that does
// not fit. Nothing is read but headers and norms.
Model load_model(const std::filesystem::path& folder);

}  // namespace lapidary
