// What the formats of adapters share: factors found by name on the way in, modules named on the
// way out.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gemma/adapter_file.h"
#include "tensor/tensor.h"

namespace lapidary {

// A matrix of a layer: "model.layers.3.self_attn.q_proj".
struct AdapterTarget {
  int layer = 0;
  size_t kind = 0;  // in adaptable_matrices()

  std::string name() const;
  auto operator<=>(const AdapterTarget&) const = default;
};
// Of a module's path with any prefix that names.h knows; nullopt for what is no such matrix.
std::optional<AdapterTarget> find_adapter_target(std::string_view path);

enum class Factor { kA, kB, kMagnitude };  // the last: DoRA's lengths of the rows, a vector

// Gathers the factors of a file.
class AdapterParts {
 public:
  // `where` names the file of factors in messages.
  explicit AdapterParts(std::string where) : where_(std::move(where)) {}

  // The factor `tensor` of the module at `path`. `turned`: it is stored as its transpose.
  // Throws Error{kInput} naming the tensor when there is no such module in a Gemma layer, it has
  // that factor already, it is no matrix of floats, or a value is not finite.
  void add(const std::string& tensor, std::string_view path, Factor factor, const TensorView& view,
           bool turned);

  // The scale of each product: of the module's path as the file has it, and its rank.
  using ScaleOf = std::function<double(const std::string& path, int64_t rank)>;
  // Throws Error{kInput} for a factor without the other, factors of two ranks, no factors, and
  // lengths of rows that are missing or too many where it is DoRA, or there where it is not.
  AdapterFile finish(const ScaleOf& scale, bool dora);

 private:
  struct Module {
    std::string path;           // in the file
    std::string names[3] = {};  // of the tensors
    AlignedVector<float> values[3] = {};
    int64_t rows[3] = {}, cols[3] = {};
  };
  std::string where_;
  std::map<AdapterTarget, Module> modules_;
  std::optional<DType> dtype_;
  bool multimodal_ = false;
};

// Throws Error{kInput} saying that a tensor is not part of a plain low-rank adapter.
[[noreturn]] void fail_tensor(const std::string& where, const std::string& tensor,
                              std::string_view problem);

// How many layers an adapter covers in the same way, if they are the first ones: 26 for "every
// matrix of 7 kinds in 26 layers". 0 if its matrices have to be listed one by one.
int whole_layers(const Adapter& adapter);
// The kinds of matrices it has, as adaptable_matrices() orders them.
std::vector<std::string> kinds_of(const Adapter& adapter);

// Rows as columns: [rows, cols] becomes [cols, rows].
AlignedVector<float> turned(const AlignedVector<float>& values, int64_t rows, int64_t cols);

// Scales of an adapter for a format that has one for all matrices.
struct CommonScale {
  double scale = 1;
  bool all = true;  // every matrix has it as it is
};
// `of` gives a matrix's.
CommonScale common_scale(const Adapter& adapter,
                         const std::function<double(const AdapterMatrix&)>& of);

}  // namespace lapidary
