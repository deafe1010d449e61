#include "lapidary/blend.h"

#include <algorithm>
#include <cmath>
#include <fnmatch.h>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include <fmt/ranges.h>

#include "lapidary/log.h"

#include "base/fail.h"
#include "base/json.h"
#include "blend/factorwise.h"
#include "gemma/adapter_file.h"
#include "gemma/adapter_parts.h"
#include "gemma/low_rank.h"
#include "gemma/set_block.h"
#include "io/printable.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {"cat",
                                  "task-arithmetic",
                                  "svd",
                                  "slerp",
                                  "linear",
                                  "ties",
                                  "dare-linear",
                                  "dare-ties",
                                  "magnitude-prune",
                                  "ties-svd",
                                  "dare-linear-svd",
                                  "dare-ties-svd",
                                  "magnitude-prune-svd"};

bool of_values(BlendMethod method) {
  return method >= BlendMethod::kTiesSvd;
}
bool of_factors(BlendMethod method) {
  return method >= BlendMethod::kLinear && !of_values(method);
}
bool has_rank(BlendMethod method) {
  return method == BlendMethod::kSvd || of_values(method);
}
bool has_density(BlendMethod method) {
  return method > BlendMethod::kLinear;
}

// The adapters' matrices by target, with their places among the adapters.
using Matrices = std::map<AdapterTarget, std::vector<std::pair<size_t, const AdapterMatrix*>>>;

// Factors of the weights by patterns of names.
class PatternWeights {
 public:
  PatternWeights(const fs::path& path, size_t adapters) {
    if (path.empty()) return;
    const OrderedJson json = read_ordered_json_file(path);
    if (!json.is_object()) fail("{}: expected an object of patterns", path.string());
    for (const auto& [pattern, value] : json.items()) {
      if (!value.is_array() || value.size() != adapters ||
          !std::all_of(value.begin(), value.end(), [](const auto& x) { return x.is_number(); }))
        fail("{}: '{}': expected {} numbers, one for each adapter", path.string(),
             printable(pattern), adapters);
      rules_.emplace_back(pattern, value.get<std::vector<double>>());
    }
  }
  double of(const std::string& target, size_t adapter) const {
    for (const auto& [pattern, factors] : rules_)
      if (fits(pattern, target)) return factors[adapter];
    return 1;
  }
  // A pattern that fits nothing is one with a slip in it.
  void check(const fs::path& path, const Matrices& matrices) const {
    for (const auto& rule : rules_)
      if (std::none_of(matrices.begin(), matrices.end(),
                       [&](const auto& m) { return fits(rule.first, m.first.name()); }))
        fail("{}: '{}' fits no matrix of the adapters, as '{}'", path.string(),
             printable(rule.first), matrices.begin()->first.name());
  }

 private:
  static bool fits(const std::string& pattern, const std::string& target) {
    return ::fnmatch(pattern.c_str(), target.c_str(), 0) == 0;
  }

  std::vector<std::pair<std::string, std::vector<double>>> rules_;
};

Matrices by_target(const std::vector<AdapterFile>& files, const std::vector<fs::path>& paths) {
  Matrices matrices;
  for (size_t i = 0; i < files.size(); ++i)
    for (const AdapterMatrix& m : files[i].adapter.matrices) {
      auto& list = matrices[*find_adapter_target(m.target)];
      if (!list.empty()) {
        const auto& [other, first] = list.front();
        const auto shape = [](const AdapterMatrix& x) {
          return std::pair(std::ssize(x.b) / x.rank, std::ssize(x.a) / x.rank);
        };
        const auto [rows, cols] = shape(m);
        const auto [first_rows, first_cols] = shape(*first);
        if (shape(m) != shape(*first))
          fail("{}: {} is [{}, {}], but in {} it is [{}, {}]", paths[i].string(), m.target, rows,
               cols, paths[other].string(), first_rows, first_cols);
      }
      list.emplace_back(i, &m);
    }
  return matrices;
}

std::vector<AdapterFile> load_all(const std::vector<fs::path>& paths) {
  std::vector<AdapterFile> files;
  files.reserve(paths.size());
  for (const fs::path& path : paths) {
    files.push_back(load_adapter(path));
    check_blendable(files.back().adapter, path);
  }
  return files;
}

// What all adapters say of set blocks; nothing, and a warning, where one says something else.
std::optional<SetBlockTraining> common_set_block(const std::vector<AdapterFile>& files,
                                                 const std::vector<fs::path>& paths) {
  const auto& first = files.front().adapter.set_block;
  for (size_t i = 1; i < files.size(); ++i)
    if (files[i].adapter.set_block != first) {
      log(LogLevel::kWarning,
          fmt::format("{} and {} were not trained on the same set blocks: the blend says nothing "
                      "of them",
                      paths.front().string(), paths[i].string()));
      return std::nullopt;
    }
  return first;
}

// The first that says which base it was made for, or else the first: the blend is for that base,
// and is named as of it. A warning where another adapter says something else.
size_t first_with_base(const std::vector<AdapterFile>& files, const std::vector<fs::path>& paths) {
  const auto names_base = [](const AdapterFile& file) { return !file.base_model.empty(); };
  const auto found = std::ranges::find_if(files, names_base);
  if (found == files.end()) return 0;
  const auto first = static_cast<size_t>(found - files.begin());
  for (size_t i = first + 1; i < files.size(); ++i)
    if (names_base(files[i]) && files[i].base_model != found->base_model)
      log(LogLevel::kWarning,
          fmt::format(
              "{} says that its base is {}, and {} that it is {}: the blend says the former",
              paths[first].string(), found->base_model, paths[i].string(), files[i].base_model));
  return first;
}

std::vector<AdapterOverlap> overlaps_of(const Matrices& matrices, const Watch& watch) {
  std::vector<AdapterOverlap> overlaps;
  for (const auto& [target, list] : matrices)
    for (size_t i = 0; i < list.size(); ++i)
      for (size_t j = i + 1; j < list.size(); ++j) {
        watch.throw_if_stopped();
        const AdapterMatrix &x = *list[i].second, &y = *list[j].second;
        AdapterOverlap o{.a = list[i].first, .b = list[j].first, .target = x.target};
        o.norm_a = std::sqrt(std::max(0.0, inner_product(x, x)));
        o.norm_b = std::sqrt(std::max(0.0, inner_product(y, y)));
        if (o.norm_a > 0 && o.norm_b > 0) {
          o.cosine = inner_product(x, y) / (o.norm_a * o.norm_b);
          o.column_cosines = principal_cosines(matrix_b(x), matrix_b(y));
          o.row_cosines = principal_cosines(matrix_a(x).transpose(), matrix_a(y).transpose());
        }
        overlaps.push_back(std::move(o));
      }
  return overlaps;
}

AdapterMatrix stored(std::string target, const Factors& factors) {
  AdapterMatrix m{.target = std::move(target), .rank = factors.a.rows(), .scale = 1};
  const auto store = [](const Eigen::MatrixXd& x) {
    AlignedVector<float> values;
    values.reserve(static_cast<size_t>(x.size()));
    for (int64_t i = 0; i < x.rows(); ++i)
      for (int64_t j = 0; j < x.cols(); ++j) values.push_back(static_cast<float>(x(i, j)));
    return values;
  };
  m.a = store(factors.a);
  m.b = store(factors.b);
  return m;
}

// What the updates of a pair are to be multiplied by to lie on the arc between them, at the second
// weight's share of the way. `sum` is that of both weights, also where one has no such matrix.
void place_on_arc(std::vector<Term>& terms, double sum) {
  if (!(sum > 0))
    fail("slerp: the weights of {} add up to {}, expected more than 0",
         terms.front().matrix->target, sum);
  if (terms.size() < 2) {
    terms[0].weight /= sum;
    return;
  }
  const double t = terms[1].weight / sum;
  const AdapterMatrix &x = *terms[0].matrix, &y = *terms[1].matrix;
  const double norms = std::sqrt(inner_product(x, x) * inner_product(y, y));
  const double cosine = norms > 0 ? inner_product(x, y) / norms : 1;
  terms[0].weight = 1 - t;
  terms[1].weight = t;
  // There the arc is the chord within rounding, and the formula divides by nothing.
  constexpr double kParallel = 0.9995;
  if (std::abs(cosine) > kParallel) return;
  const double angle = std::acos(cosine);
  terms[0].weight = std::sin((1 - t) * angle) / std::sin(angle);
  terms[1].weight = std::sin(t * angle) / std::sin(angle);
}

double weight_of(const BlendPart& part, int layer) {
  if (part.layer_weights.empty()) return part.weight;
  const auto i = static_cast<size_t>(layer);
  if (i >= part.layer_weights.size())
    fail_usage("{}: {} weights by layer given, but it has a layer {}", part.adapter.string(),
               part.layer_weights.size(), layer);
  return part.layer_weights[i];
}

void check_options(const std::vector<BlendPart>& parts, const BlendOptions& o) {
  if (parts.empty()) fail_usage("no adapter given to blend");
  for (const BlendPart& part : parts) {
    std::vector<double> weights = part.layer_weights;
    weights.push_back(part.weight);
    for (const double weight : weights)
      if (!std::isfinite(weight))
        fail_usage("{}: weight {} is not a number", part.adapter.string(), weight);
  }
  const char* method = kNames[static_cast<size_t>(o.method)];
  if (!(o.density > 0 && o.density <= 1))
    fail_usage("--density: {} given, expected more than 0 and at most 1", o.density);
  if (o.density != 1 && !has_density(o.method)) fail_usage("--density: {} has none", method);
  if (o.rank < 0) fail_usage("--rank: {} given, expected 1 or more", o.rank);
  if (o.rank != 0 && !has_rank(o.method))
    fail_usage("--rank: is of svd and *-svd; that of {} follows from the adapters", method);
  if (o.format == AdapterFormat::kGguf)
    throw Error(ErrorKind::kUsage, "a blend is written as peft or mlx",
                "lapidary adapter convert makes a GGUF file of it");
  if (o.method != BlendMethod::kSlerp) return;
  if (parts.size() > 2) fail_usage("slerp: {} adapters given, expected two", parts.size());
  for (const BlendPart& part : parts)
    if (part.weight < 0) fail_usage("slerp: weight {} is negative", part.weight);
}

void check_ranks(const std::vector<Term>& terms, const char* method) {
  for (const Term& term : terms)
    if (term.matrix->rank != terms.front().matrix->rank)
      throw Error(ErrorKind::kInput,
                  fmt::format("{}: {} has rank {} in one adapter and {} in another", method,
                              term.matrix->target, terms.front().matrix->rank, term.matrix->rank),
                  "cat, svd and *-svd take any ranks");
}

}  // namespace

std::vector<const char*> blend_method_names() {
  return {std::begin(kNames), std::end(kNames)};
}

BlendMethod blend_method_named(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<BlendMethod>(i);
  fail_usage("--method: '{}' given, expected one of {}", name, fmt::join(kNames, ", "));
}

std::vector<AdapterOverlap> compare_adapters(const std::vector<fs::path>& adapters) {
  const std::vector<AdapterFile> files = load_all(adapters);
  return overlaps_of(by_target(files, adapters), {});
}

Blend blend(const std::vector<BlendPart>& parts, const fs::path& out, const BlendOptions& options,
            const Watch& watch) {
  check_options(parts, options);
  check_adapter_target(out, options.format, options.overwrite);
  const PatternWeights layer_weights(options.layer_weights, parts.size());
  std::vector<fs::path> paths;
  std::error_code ignored;
  for (const BlendPart& part : parts) {
    if (fs::equivalent(part.adapter, out, ignored))
      fail("{}: is one of the adapters to blend", out.string());
    paths.push_back(part.adapter);
  }
  const std::vector<AdapterFile> files = load_all(paths);
  const Matrices matrices = by_target(files, paths);
  layer_weights.check(options.layer_weights, matrices);
  int64_t rank = options.rank;
  if (rank == 0)
    for (const AdapterFile& file : files)
      for (const AdapterMatrix& m : file.adapter.matrices) rank = std::max(rank, m.rank);

  Blend made;
  const AdapterFile& of_base = files[first_with_base(files, paths)];
  AdapterFile result{
      .format = options.format, .base_model = of_base.base_model, .multimodal = of_base.multimodal};
  result.adapter.set_block = common_set_block(files, paths);
  double dropped = 0, total = 0;
  for (const auto& [target, list] : matrices) {
    watch.throw_if_stopped();
    const std::string name = target.name();
    std::vector<Term> terms;
    std::vector<double> weights;
    for (size_t i = 0; i < parts.size(); ++i)
      weights.push_back(weight_of(parts[i], target.layer) * layer_weights.of(name, i));
    for (const auto& [i, matrix] : list) terms.push_back({matrix, weights[i]});
    if (options.method == BlendMethod::kSlerp)
      place_on_arc(terms, std::accumulate(weights.begin(), weights.end(), 0.0));
    auto& matrices_made = result.adapter.matrices;
    if (of_factors(options.method)) {
      check_ranks(terms, kNames[static_cast<size_t>(options.method)]);
      matrices_made.push_back(blend_factors(terms, options, matrices_made.size()));
    } else if (of_values(options.method)) {
      const Eigen::MatrixXd sum = blend_updates(terms, options, matrices_made.size());
      matrices_made.push_back(stored(name, nearest(sum, rank, dropped, total)));
    } else {
      Factors sum = side_by_side(terms);
      if (options.method == BlendMethod::kSvd) sum = truncated(sum, rank, dropped, total);
      matrices_made.push_back(stored(name, sum));
    }
    watch.report(std::ssize(matrices_made), std::ssize(matrices));
  }
  made.overlaps = overlaps_of(matrices, watch);
  made.truncated = total > 0 ? std::sqrt(dropped / total) : 0;
  save_adapter(result, options.format, out, options.overwrite);
  made.result = summary_of(result);
  return made;
}

}  // namespace lapidary
