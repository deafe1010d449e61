// What a conversion does with each tensor of a model.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/convert.h"

#include "gemma/load.h"
#include "gemma/set_block.h"
#include "generate/row_stream.h"
#include "generate/storage.h"
#include "io/quantization.h"

namespace lapidary {

struct PlannedTensor {
  std::string name;            // in the folder's files; of a GGUF file only afterwards
  std::vector<int64_t> shape;  // of the weights
  // The weights as rows; of what is no matrix of the text model as rows of its first axis. Without
  // data for what is not floats, which is copied as it is.
  WeightMatrix matrix;
  const TensorView* view = nullptr;  // of a folder's tensor that is no matrix of the text model
  Storage before = {};               // of a GGUF file unset
  Storage after = {};
  // Where set: other values than the matrix has, in its shape, and another way to choose the bytes
  // of `after` than encoder_of(after).
  std::optional<RowSource> values = {};
  std::optional<RowEncoder> chosen = {};
  bool verbatim = false;  // keeps its bytes

  bool copied() const { return matrix.data == nullptr; }
  RowEncoder encoder() const { return chosen ? *chosen : encoder_of(after); }
  bool in_text_model() const { return view == nullptr && shape.size() == 2; }
  // The bytes as the source has them, in the order in which declare() of the result has them.
  std::vector<std::span<const std::byte>> stored_bytes() const;
  int64_t weights() const { return copied() ? view->elements() : matrix.rows * matrix.cols; }
};

struct ConversionPlan {
  std::vector<PlannedTensor> tensors;            // in the order of the model, the images' part last
  std::vector<std::vector<float>> norms;         // of a GGUF file, as HF has them: without "1 +"
  std::optional<QuantizationSpec> quantization;  // by module paths of the files
  // What config.json is to say of training on set blocks; none: what the model says.
  std::optional<SetBlockTraining> set_block = {};
  int64_t changed = 0;  // tensors that are stored in another way afterwards
  // Where set, called in the check with the result, to look at it; may throw Error{kInput}.
  std::function<void(const Model& result, ThreadPool& pool)> inspect = {};

  int64_t weights() const;
};

// Throws Error{kUsage} for options that no model can have. A GGUF file needs none to become a
// folder.
void check_folder_options(const FolderOptions& options, bool from_gguf);

// The --dtype of what is made of a GGUF file where none is given: that of the embedding, bf16 where
// it is quantised.
std::string dtype_from_gguf(const Model& model);

Storage storage_of(const WeightMatrix& matrix);

// The plan points into the model. `where` names it in messages. Throws as convert_folder.
ConversionPlan plan_conversion(const Model& model, const FolderOptions& options,
                               const std::string& where);

// A plan that stores each tensor as it is, byte for byte but for matrices to `dequantize`; of a
// GGUF file dense, as dtype_from_gguf says. Throws Error{kUsage} for one of quantised weights that
// are not to be dequantised.
ConversionPlan plan_copy(const Model& model, bool dequantize, const std::string& where);

// Throws Error{kInput} unless `out` can take a folder that is made from `in`.
void check_target(const std::filesystem::path& in, const std::filesystem::path& out,
                  bool overwrite);

// Writes the folder of a plan and checks it, as convert_folder. `settings` says in the result how
// it was made. What a GGUF file says of its vocabulary is forgotten on the way.
Conversion write_folder(Model& model, const ConversionPlan& plan, const std::filesystem::path& out,
                        const FolderOptions& options, const std::string& settings,
                        const Watch& watch);

}  // namespace lapidary
