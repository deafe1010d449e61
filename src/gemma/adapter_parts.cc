#include "gemma/adapter_parts.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/fail.h"
#include "base/float16.h"
#include "io/names.h"
#include "io/printable.h"

namespace lapidary {

namespace {

constexpr std::string_view kLayers = "model.layers.";
constexpr const char* kFactorNames[] = {"A", "B"};

int64_t elements_of(const AlignedVector<float>& values) {
  return std::ssize(values);
}

}  // namespace

std::string AdapterTarget::name() const {
  return fmt::format("{}{}.{}", kLayers, layer, adaptable_matrices()[kind]);
}

std::optional<AdapterTarget> find_adapter_target(std::string_view path) {
  const ClassifiedName name = classify_name(path);
  if (name.part != NamePart::kText || !name.canonical.starts_with(kLayers)) return std::nullopt;
  std::string_view rest = std::string_view(name.canonical).substr(kLayers.size());
  AdapterTarget target;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), target.layer);
  const auto digits = static_cast<size_t>(end - rest.data());
  if (error != std::errc() || target.layer < 0 || digits == rest.size() || rest[digits] != '.' ||
      std::to_string(target.layer) != rest.substr(0, digits))
    return std::nullopt;
  const std::vector<std::string> kinds = adaptable_matrices();
  const auto kind = std::ranges::find(kinds, rest.substr(digits + 1));
  if (kind == kinds.end()) return std::nullopt;
  target.kind = static_cast<size_t>(kind - kinds.begin());
  return target;
}

void fail_tensor(const std::string& where, const std::string& tensor, std::string_view problem) {
  fail("{}: tensor '{}': {}", where, printable(tensor), problem);
}

void AdapterParts::add(const std::string& tensor, std::string_view path, Factor factor,
                       const TensorView& view, bool turn) {
  const auto target = find_adapter_target(path);
  if (!target)
    fail_tensor(where_, tensor,
                "is for no matrix of a Gemma layer's attention or MLP, which is all that adapters "
                "can be for");
  if (!is_float(view.dtype))
    fail_tensor(where_, tensor, fmt::format("dtype {}, expected floats", name_of(view.dtype)));
  const bool vector = factor == Factor::kMagnitude;
  if (view.shape.size() != (vector ? 1 : 2) || view.elements() == 0)
    fail_tensor(where_, tensor,
                fmt::format("shape {}, expected a {}", shape_string(view.shape),
                            vector ? "vector" : "matrix"));
  const auto at = static_cast<size_t>(factor);
  Module& module = modules_[*target];
  if (!module.names[at].empty())
    fail_tensor(where_, tensor,
                fmt::format("is the same factor as '{}'", printable(module.names[at])));
  module.path = path;
  module.names[at] = tensor;
  AlignedVector<float> values(static_cast<size_t>(view.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = float_at(view.bytes.data(), view.dtype, static_cast<int64_t>(i));
    if (!std::isfinite(values[i]))
      fail_tensor(where_, tensor, fmt::format("value {} is not finite", i));
  }
  module.rows[at] = view.shape[turn ? 1 : 0];
  module.cols[at] = vector ? 1 : view.shape[turn ? 0 : 1];
  module.values[at] = turn ? turned(values, view.shape[0], view.shape[1]) : std::move(values);
  dtype_ = dtype_.value_or(view.dtype) == view.dtype ? view.dtype : DType::kF32;
  multimodal_ |= !path.starts_with(kLayers);
}

AdapterFile AdapterParts::finish(const ScaleOf& scale, bool dora) {
  if (modules_.empty()) fail("{}: no tensors in it", where_);
  AdapterFile file;
  file.dtype = *dtype_;
  file.multimodal = multimodal_;
  for (auto& [target, m] : modules_) {
    for (const size_t i : {0, 1})
      if (m.names[i].empty())
        fail_tensor(where_, m.names[m.names[1 - i].empty() ? 2 : 1 - i],
                    fmt::format("factor {} of the same matrix is missing", kFactorNames[i]));
    if (m.rows[0] != m.cols[1])
      fail_tensor(
          where_, m.names[1],
          fmt::format("has rank {}, but '{}' has {}", m.cols[1], printable(m.names[0]), m.rows[0]));
    if (dora == m.names[2].empty())
      fail_tensor(where_, m.names[dora ? 1 : 2],
                  dora ? "DoRA's lengths of the rows are missing beside it"
                       : "is of DoRA, which the configuration does not say it is");
    if (dora && m.rows[2] != m.rows[1])
      fail_tensor(where_, m.names[2],
                  fmt::format("has {} values, but '{}' has {} rows", m.rows[2],
                              printable(m.names[1]), m.rows[1]));
    const double s = scale(m.path, m.rows[0]);
    if (!(std::abs(s) <= std::numeric_limits<float>::max()))
      fail("{}: the scale of {} is {}, expected a finite f32", where_, printable(m.path), s);
    file.adapter.matrices.push_back({.target = target.name(),
                                     .rank = m.rows[0],
                                     .scale = s,
                                     .a = std::move(m.values[0]),
                                     .b = std::move(m.values[1]),
                                     .magnitude = std::move(m.values[2])});
  }
  return file;
}

int whole_layers(const Adapter& adapter) {
  const size_t kinds = kinds_of(adapter).size();
  if (kinds == 0 || adapter.matrices.size() % kinds != 0) return 0;
  const size_t layers = adapter.matrices.size() / kinds;
  // No target comes twice, so that none past the end means that every place is taken.
  const bool first_ones = std::ranges::all_of(adapter.matrices, [&](const AdapterMatrix& m) {
    return static_cast<size_t>(find_adapter_target(m.target)->layer) < layers;
  });
  return first_ones ? static_cast<int>(layers) : 0;
}

std::vector<std::string> kinds_of(const Adapter& adapter) {
  std::vector<std::string> kinds = adaptable_matrices();
  std::erase_if(kinds, [&](const std::string& kind) {
    return std::ranges::none_of(
        adapter.matrices, [&](const AdapterMatrix& m) { return m.target.ends_with("." + kind); });
  });
  return kinds;
}

AlignedVector<float> turned(const AlignedVector<float>& values, int64_t rows, int64_t cols) {
  LAPIDARY_CHECK(elements_of(values) == rows * cols, "turned: another shape");
  AlignedVector<float> out(values.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j)
      out[static_cast<size_t>(j * rows + i)] = values[static_cast<size_t>(i * cols + j)];
  return out;
}

CommonScale common_scale(const Adapter& adapter,
                         const std::function<double(const AdapterMatrix&)>& of) {
  CommonScale common;
  for (const AdapterMatrix& m : adapter.matrices)
    if (of(m) != 0) {
      common.scale = of(m);
      break;
    }
  common.all = std::ranges::all_of(adapter.matrices,
                                   [&](const AdapterMatrix& m) { return of(m) == common.scale; });
  return common;
}

}  // namespace lapidary
