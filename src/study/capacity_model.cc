#include "study/capacity_model.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "lapidary/capacity_study.h"
#include "lapidary/synth.h"

#include "base/fail.h"

namespace lapidary {

namespace {

constexpr int kHeadDim = 16;

}  // namespace

void check_amounts(const std::vector<int64_t>& sizes, const std::vector<double>& loads) {
  if (sizes.empty()) fail_usage("--sizes: none given");
  for (const double load : loads)
    if (!(load > 0 && load <= 1000))
      fail_usage("--loads: {} bits per parameter given, expected more than 0, at most 1000", load);
  if (std::ranges::adjacent_find(loads, std::greater_equal()) != loads.end())
    fail_usage("--loads: they do not ascend");
  if (std::set(sizes.begin(), sizes.end()).size() != sizes.size())
    fail_usage("--sizes: one is given twice");
}

int64_t sequences_of_load(double load, int64_t parameters, int64_t length, int vocabulary) {
  const double bits = static_cast<double>(length - 1) * std::log2(vocabulary);
  return std::max<int64_t>(1, std::llround(load * static_cast<double>(parameters) / bits));
}

void make_capacity_model(int64_t size, int vocabulary, int layers, uint64_t seed,
                         const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / "config.json"))
    synthesize(capacity_shape(size, vocabulary, layers),
               {.dtype = "f32", .seed = seed, .threads = 1}, folder);
}

Config capacity_shape(int64_t parameters, int vocabulary, int layers) {
  // As wide as an MLP of the same width allows; the MLP takes what is left.
  const auto without_mlp = [&](int64_t d) {
    return (vocabulary + 1) * d + layers * (2 * d * (d + kHeadDim) + 4 * d + 2 * kHeadDim);
  };
  const auto least = [&](int64_t d) { return without_mlp(d) + layers * 3 * d * d; };
  int64_t d = kHeadDim;
  if (least(d) > parameters)
    fail_usage(
        "--sizes: {} parameters are too few for {} layers and a vocabulary of {}, which take {}",
        parameters, layers, vocabulary, least(d));
  while (least(d + kHeadDim) <= parameters) d += kHeadDim;
  const auto unit = static_cast<double>(layers * 3 * d * kHeadDim);
  const auto units = std::lround(static_cast<double>(parameters - without_mlp(d)) / unit);
  return with_overrides(preset("gemma-3-270m"), {.layers = layers,
                                                 .hidden = static_cast<int>(d),
                                                 .ffn = static_cast<int>(units) * kHeadDim,
                                                 .heads = static_cast<int>(d) / kHeadDim,
                                                 .kv_heads = 1,
                                                 .head_dim = kHeadDim,
                                                 .vocab = vocabulary});
}

}  // namespace lapidary
