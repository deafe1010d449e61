#include "train/model_folder.h"

#include <type_traits>
#include <utility>
#include <vector>

#include "base/json.h"
#include "generate/folder_files.h"
#include "io/safetensors.h"
#include "io/staging.h"
#include "kernels/kernels.h"
#include "quant/row_encoder.h"

namespace lapidary {

namespace {

// The tensors of a model one after another, as rows of f32.
class TensorWriter {
 public:
  TensorWriter(SafetensorsWriter& writer, DType dtype)
      : writer_(writer), encoder_(dense_encoder(dtype)) {}

  void matrix(const Linear& matrix) {
    std::vector<float> values(static_cast<size_t>(matrix.cols));
    for (int64_t row = 0; row < matrix.rows; ++row) {
      best_kernels().dequantize_row(matrix, row, values.data());
      write(values);
    }
  }
  void norm(std::span<const float> one_plus) {
    std::vector<float> values(one_plus.begin(), one_plus.end());
    for (float& value : values) value -= 1;
    write(values);
  }

 private:
  void write(std::span<const float> values) {
    bytes_.resize(values.size() * static_cast<size_t>(encoder_.block_bytes[0]));
    std::byte* parts[] = {bytes_.data()};
    encoder_.encode(values, parts);
    writer_.write(bytes_);
  }

  SafetensorsWriter& writer_;
  RowEncoder encoder_;
  std::vector<std::byte> bytes_;
};

}  // namespace

void write_model_folder(const Model& model, const std::filesystem::path& source,
                        const std::filesystem::path& out,
                        const std::optional<SetBlockTraining>& set_block) {
  const DType dtype =
      model.dtype == DType::kF32 || model.dtype == DType::kF16 ? model.dtype : DType::kBF16;
  const bool own_head = model.weights.lm_head.data != model.weights.embed_tokens.data;
  std::vector<TensorDeclaration> declarations;
  visit_tensors(model.config, model.weights,
                [&](const std::string& name, const auto&, int64_t rows, int64_t cols) {
                  declarations.push_back(
                      {name, dtype, cols == 0 ? std::vector{rows} : std::vector{rows, cols}});
                });
  if (own_head)
    declarations.push_back(
        {"lm_head.weight", dtype, {model.weights.lm_head.rows, model.weights.lm_head.cols}});

  Staging staging(out);
  SafetensorsWriter writer(staging.path() / "model.safetensors", declarations, {{"format", "pt"}});
  TensorWriter tensors(writer, dtype);
  visit_tensors(model.config, model.weights,
                [&](const std::string&, const auto& field, int64_t, int64_t) {
                  if constexpr (std::is_same_v<decltype(field), const Linear&>) {
                    tensors.matrix(field);
                  } else {
                    tensors.norm(field);
                  }
                });
  if (own_head) tensors.matrix(model.weights.lm_head);
  writer.finish();
  copy_other_files(source, staging.path());
  OrderedJson config = read_ordered_json_file(source / "config.json");
  if (set_block) config[kSetBlockKey] = to_json(*set_block);
  write_config(std::move(config), staging.path(), std::nullopt, torch_name(dtype));
  staging.commit();
}

}  // namespace lapidary
