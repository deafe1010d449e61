#include "generate/recipe.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fnmatch.h>

#include <fmt/ranges.h>

#include "base/fail.h"
#include "base/json.h"
#include "generate/storage.h"
#include "io/printable.h"

namespace lapidary {

namespace {

struct Mixed {
  const char* name;
  int low_bits;
  int high_bits;
};
constexpr Mixed kMixed[] = {
    {"mixed_2_6", 2, 6}, {"mixed_3_4", 3, 4}, {"mixed_3_6", 3, 6}, {"mixed_4_6", 4, 6}};

bool ends_with_any(const std::string& path, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(),
                     [&](const char* end) { return path.ends_with(end); });
}

}  // namespace

int layer_of(std::string_view name) {
  constexpr std::string_view kStart = "model.layers.";
  int layer = -1;
  if (name.starts_with(kStart))
    std::from_chars(name.data() + kStart.size(), name.data() + name.size(), layer);
  return layer;
}

bool deserves_more_bits(int layer, int layers) {
  const int eighth = layers / 8;
  return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

std::vector<std::string> Recipe::names() {
  std::vector<std::string> names;
  for (const Mixed& mixed : kMixed) names.emplace_back(mixed.name);
  return names;
}

Recipe Recipe::load(const std::string& name, const AffineQuantization& defaults) {
  for (const Mixed& mixed : kMixed) {
    if (name != mixed.name) continue;
    Recipe recipe({mixed.low_bits, defaults.group_size});
    recipe.high_bits_ = mixed.high_bits;
    return recipe;
  }
  std::error_code ignored;
  if (!std::filesystem::exists(name, ignored))
    fail_usage("recipe: '{}' is neither a file nor one of {}", printable(name),
               fmt::join(names(), ", "));
  return parse(name, defaults);
}

Recipe Recipe::parse(const std::string& file, const AffineQuantization& defaults) {
  // The order of the keys counts, which Json does not keep.
  const OrderedJson json = read_ordered_json_file(file);
  Recipe recipe(defaults);
  recipe.file_ = file;
  if (!json.is_object() || json.empty())
    fail("{}: expected an object of patterns, found {}", file, shown_json(Json(json)));
  for (const auto& [pattern, value] : json.items()) {
    if (value == false) {
      recipe.rules_.push_back({pattern, std::nullopt});
      continue;
    }
    const Json rule = value;
    const JsonObject fields(rule, fmt::format("{}: '{}'", file, printable(pattern)));
    if (!rule.is_object())
      fail("{}: expected an object or false, found {}", fields.where(), shown_json(rule));
    for (const auto& field : rule.items())
      if (field.key() != "bits" && field.key() != "group_size")
        fields.fail_field(printable(field.key()), "unknown, expected bits or group_size");
    const auto bits = static_cast<int>(fields.integer("bits", defaults.bits));
    const auto group = static_cast<int>(fields.integer("group_size", defaults.group_size));
    try {
      check_affine_options(bits, group);
    } catch (const Error& e) {
      fail("{}: {}", fields.where(), e.what());
    }
    recipe.rules_.push_back({pattern, AffineQuantization{bits, group}});
  }
  return recipe;
}

std::map<std::string, std::optional<AffineQuantization>> Recipe::apply(
    const std::vector<std::string>& modules, int layers) const {
  std::map<std::string, std::optional<AffineQuantization>> result;
  std::vector<bool> used(rules_.size());
  for (const std::string& path : modules) {
    std::optional<AffineQuantization> storage = defaults_;
    if (high_bits_ != 0) {
      const bool sensitive = ends_with_any(path, {".v_proj", ".down_proj"});
      if ((sensitive && deserves_more_bits(layer_of(path), layers)) || path == "lm_head")
        storage->bits = high_bits_;
    }
    bool decided = false;
    for (size_t i = 0; i < rules_.size(); ++i) {
      if (::fnmatch(rules_[i].pattern.c_str(), path.c_str(), 0) != 0) continue;
      used[i] = true;
      if (!decided) storage = rules_[i].storage;
      decided = true;
    }
    result.emplace(path, storage);
  }
  const auto unused = std::find(used.begin(), used.end(), false);
  if (unused != used.end())
    fail("{}: pattern '{}' fits no module of the model, such as '{}'", file_,
         printable(rules_[static_cast<size_t>(unused - used.begin())].pattern), modules.back());
  return result;
}

}  // namespace lapidary
