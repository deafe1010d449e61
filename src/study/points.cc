// Which points of a model are meant.
#include "study/points.h"

#include <algorithm>
#include <charconv>
#include <fnmatch.h>

#include <fmt/format.h>

#include "lapidary/activations.h"

#include "base/fail.h"

namespace lapidary {

namespace {

std::vector<ModelPoint> all_points(const Config& config) {
  std::vector<ModelPoint> points;
  const std::span<const TapPoint> list = tap_points();
  const auto block = std::ranges::find_if(list, &TapPoint::in_block);
  const auto end = std::find_if_not(block, list.end(), [](auto& p) { return p.in_block; });
  for (auto p = list.begin(); p != block; ++p) points.push_back({-1, &*p});
  for (int layer = 0; layer < config.num_hidden_layers; ++layer)
    for (auto p = block; p != end; ++p) points.push_back({layer, &*p});
  for (auto p = end; p != list.end(); ++p) points.push_back({-1, &*p});
  return points;
}

bool matches(const std::string& name, const std::string& pattern) {
  return ::fnmatch(pattern.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
}

}  // namespace

int64_t heads_of(const Config& config, const TapPoint& point) {
  switch (point.width) {
    case TapPoint::Width::kQueries:
      return config.num_attention_heads;
    case TapPoint::Width::kKeys:
      return config.num_key_value_heads;
    default:
      return 0;
  }
}

std::vector<ModelPoint> find_points(const Config& config, std::span<const std::string> patterns) {
  const std::vector<ModelPoint> all = all_points(config);
  for (const std::string& pattern : patterns)
    if (std::ranges::none_of(all, [&](const ModelPoint& p) { return matches(p.name(), pattern); }))
      throw Error(ErrorKind::kUsage,
                  fmt::format("no point of this model matches {}; it has {} layers", pattern,
                              config.num_hidden_layers),
                  "lapidary study activations --list");
  std::vector<ModelPoint> found;
  for (const ModelPoint& p : all)
    if (std::ranges::any_of(patterns, [&](const auto& text) { return matches(p.name(), text); }))
      found.push_back(p);
  return found;
}

std::vector<Intervention> find_interventions(const Config& config, const std::string& text) {
  const size_t colon = text.find(':');
  const std::string pattern = text.substr(0, colon);
  int64_t head = -1;
  if (colon != std::string::npos) {
    const std::string_view number = std::string_view(text).substr(colon + 1);
    const auto [end, error] = std::from_chars(number.begin(), number.end(), head);
    if (error != std::errc() || end != number.end() || head < 0)
      fail_usage("{}: expected the number of a head after the colon", text);
  }
  std::vector<Intervention> list;
  for (const ModelPoint& p : find_points(config, {&pattern, 1})) {
    const int64_t heads = heads_of(config, *p.point);
    Intervention change{.at = p, .width = p.point->cols(config), .heads = heads};
    change.cols = change.width;
    if (head >= 0) {
      if (heads == 0) fail_usage("{}: {} has no heads", text, p.name());
      if (head >= heads) fail_usage("{}: {} has {} heads, counted from 0", text, p.name(), heads);
      change.cols = config.head_dim;
      change.first_col = head * config.head_dim;
    }
    list.push_back(std::move(change));
  }
  return list;
}

}  // namespace lapidary
