// What a conversion does with each tensor of a model folder.
#pragma once

#include <string>
#include <vector>

#include "lapidary/convert.h"

#include "gemma/load.h"
#include "generate/storage.h"
#include "io/quantization.h"

namespace lapidary {

struct PlannedTensor {
  std::string name;            // in the files, before and after
  std::vector<int64_t> shape;  // of the weights
  // The weights as rows; of what is no matrix of the text model as rows of its first axis. Without
  // data for what is not floats, which is copied as it is.
  WeightMatrix matrix;
  const TensorView* view = nullptr;  // of what is no matrix of the text model
  Storage before = {};
  Storage after = {};

  bool copied() const { return matrix.data == nullptr; }
  int64_t weights() const { return copied() ? view->elements() : matrix.rows * matrix.cols; }
};

struct ConversionPlan {
  std::vector<PlannedTensor> tensors;            // in the order of the model, the images' part last
  std::optional<QuantizationSpec> quantization;  // by module paths of the files
  int64_t changed = 0;  // tensors that are stored in another way afterwards
};

// Throws Error{kUsage} for options that no model can have.
void check_folder_options(const FolderOptions& options);

Storage storage_of(const WeightMatrix& matrix);

// The plan points into the model. `where` names it in messages. Throws as convert_folder.
ConversionPlan plan_conversion(const Model& model, const FolderOptions& options,
                               const std::string& where);

}  // namespace lapidary
