#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "base/fail.h"
#include "io/printable.h"
#include "train/adamw.h"
#include "train/muon.h"
#include "train/sgd.h"

namespace lapidary {

namespace {

constexpr std::pair<OptimizerKind, std::string_view> kKinds[] = {{OptimizerKind::kAdamW, "adamw"},
                                                                 {OptimizerKind::kAdamW8, "adamw8"},
                                                                 {OptimizerKind::kSgd, "sgd"},
                                                                 {OptimizerKind::kMuon, "muon"}};

// The magnitude that a value must exceed to be above the quantile: where the quantile lies between
// two values, being above it and being above the lower one are the same.
float magnitude_quantile(const Moment& moment, double quantile) {
  std::vector<float> magnitudes(static_cast<size_t>(moment.size()));
  for (size_t i = 0; i < magnitudes.size(); ++i)
    magnitudes[i] = std::abs(moment.at(static_cast<int64_t>(i)));
  const double place = std::floor(quantile * static_cast<double>(magnitudes.size() - 1));
  const auto threshold = magnitudes.begin() + static_cast<int64_t>(place);
  std::nth_element(magnitudes.begin(), threshold, magnitudes.end());
  return *threshold;
}

}  // namespace

OptimizerKind optimizer_kind(std::string_view name) {
  for (const auto& [kind, its_name] : kKinds)
    if (its_name == name) return kind;
  fail_usage("--optimizer: '{}' given, expected adamw, adamw8, sgd or muon", name);
}

std::string_view name_of(OptimizerKind kind) {
  return std::find_if(std::begin(kKinds), std::end(kKinds),
                      [kind](const auto& known) { return known.first == kind; })
      ->second;
}

void OptimizerOptions::check() const {
  const auto below_one = [](const char* what, double value) {
    if (!(value >= 0 && value < 1))
      fail_usage("--{}: {} given, expected 0 or more and less than 1", what, value);
  };
  below_one("beta1", beta1);
  below_one("beta2", beta2);
  below_one("momentum", momentum);
  below_one("muon-momentum", muon_momentum);
  if (!(eps > 0 && std::isfinite(eps))) fail_usage("--eps: {} given, expected more than 0", eps);
  if (!(weight_decay >= 0 && std::isfinite(weight_decay)))
    fail_usage("--weight-decay: {} given, expected 0 or more", weight_decay);
}

Optimizer::Optimizer(const OptimizerOptions& options, std::span<const Parameter> parameters)
    : options_(options), steps_(parameters.size()) {
  for (const Parameter& p : parameters) entries_.push_back({p.name, p.size(), {}});
}

void Optimizer::add_moment(size_t parameter, std::string_view moment, MomentType type) {
  Entry& entry = entries_[parameter];
  entry.moments.emplace_back(fmt::format("{}.{}", moment, entry.name), type, entry.size);
}

void Optimizer::step(std::span<const Parameter> parameters, double lr, Executor& ex) {
  LAPIDARY_CHECK(parameters.size() == entries_.size(), "a step moves all parameters");
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    LAPIDARY_CHECK(p.name == entries_[i].name && p.size() == entries_[i].size &&
                       p.grad.size() == p.value.size(),
                   fmt::format("parameter {} is not the one of before: {}", i, p.name));
    ++steps_[i];
  }
  update(parameters, lr, ex);
}

std::vector<StateArray> Optimizer::state() {
  std::vector<StateArray> arrays{
      {"step", DType::kI64, std::ssize(steps_), std::as_writable_bytes(std::span(steps_))}};
  for (Entry& entry : entries_)
    for (Moment& moment : entry.moments) moment.append_arrays(arrays);
  return arrays;
}

namespace {

// Without its second moment a first one would be divided by eps alone. That is no matter of a small
// learning rate: where the gradient is zero, as it is for a after a merge (b = 0), the second one
// stays zero, and the step is 10^8 times the moment.
void drop_unscaled(std::vector<Moment>& moments) {
  if (moments.size() != 2) return;
  for (int64_t i = 0; i < moments[0].size(); ++i)
    if (moments[1].at(i) == 0) moments[0].clear(i);
}

}  // namespace

void Optimizer::keep_largest(size_t parameter, double quantile) {
  LAPIDARY_CHECK(quantile >= 0 && quantile <= 1, "a quantile lies between 0 and 1");
  for (Moment& moment : entries_[parameter].moments) {
    if (moment.size() == 0) continue;
    const float threshold = magnitude_quantile(moment, quantile);
    for (int64_t i = 0; i < moment.size(); ++i)
      if (!(std::abs(moment.at(i)) > threshold)) moment.clear(i);
  }
  drop_unscaled(entries_[parameter].moments);
}

void Optimizer::prune_at_random(size_t parameter, double share, const CounterRng& rng) {
  Entry& entry = entries_[parameter];
  for (int64_t i = 0; i < entry.size; ++i)
    if (rng.uniform(static_cast<uint64_t>(i)) < share)
      for (Moment& moment : entry.moments) moment.clear(i);
}

void Optimizer::reset(size_t parameter) {
  for (Moment& moment : entries_[parameter].moments) moment.clear();
  steps_[parameter] = 0;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          std::span<const Parameter> parameters) {
  options.check();
  switch (options.kind) {
    case OptimizerKind::kAdamW:
    case OptimizerKind::kAdamW8:
      return std::make_unique<AdamW>(options, parameters);
    case OptimizerKind::kSgd:
      return std::make_unique<Sgd>(options, parameters);
    case OptimizerKind::kMuon:
      return std::make_unique<Muon>(options, parameters);
  }
  LAPIDARY_CHECK(false, "every kind is made");
}

void write_state(const std::filesystem::path& path, std::span<const StateArray> arrays,
                 const Metadata& metadata) {
  std::vector<TensorDeclaration> declarations;
  for (const StateArray& array : arrays)
    declarations.push_back({array.name, array.dtype, {array.elements}});
  SafetensorsWriter writer(path, std::move(declarations), metadata);
  for (const StateArray& array : arrays) writer.write(array.bytes);
  writer.finish();
}

void read_state(const SafetensorsFile& file, std::span<const StateArray> arrays) {
  const std::string where = file.path().string();
  std::set<std::string_view> expected;
  for (const StateArray& array : arrays) {
    expected.insert(array.name);
    const TensorView* const found = file.find(array.name);
    if (found == nullptr) fail("{}: tensor '{}' is missing", where, printable(array.name));
    if (found->dtype != array.dtype || found->elements() != array.elements)
      fail("{}: tensor '{}': {} {}, expected {} [{}]", where, printable(array.name),
           name_of(found->dtype), shape_string(found->shape), name_of(array.dtype), array.elements);
  }
  for (const NamedTensor& tensor : file.tensors())
    if (!expected.contains(tensor.name))
      fail("{}: tensor '{}' is not part of this optimizer's state", where, printable(tensor.name));
  for (const StateArray& array : arrays)
    if (!array.bytes.empty())
      std::memcpy(array.bytes.data(), file.find(array.name)->bytes.data(), array.bytes.size());
}

}  // namespace lapidary
