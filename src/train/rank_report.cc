#include "train/rank_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace lapidary {

namespace {

struct Line {
  double step;
  std::string layer, kind;                                        // "3" and "q_proj"
  double effective_rank, left_angle, right_angle, update_cosine;  // NaN: null
  std::vector<double> values;
};

Line parse(const Json& json) {
  const JsonObject object(json, "ranks.jsonl");
  const std::string name = object.string("matrix");  // "model.layers.3.self_attn.q_proj"
  constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers))
    object.fail_field("matrix", fmt::format("expected one of a layer, found '{}'", name));
  const std::string layer = name.substr(kLayers.size());
  Line line{.step = object.number("step"),
            .layer = layer.substr(0, layer.find('.')),
            .kind = name.substr(name.rfind('.') + 1),
            .effective_rank = object.number("effective_rank", NAN),
            .left_angle = object.number("left_angle", NAN),
            .right_angle = object.number("right_angle", NAN),
            .update_cosine = object.number("update_cosine", NAN),
            .values = {}};
  for (const Json& value : object.raw("singular_values"))
    line.values.push_back(value.is_number() ? value.get<double>() : NAN);
  return line;
}

// Points at the means of what was added at each x, but for NaN.
class Means {
 public:
  void add(double x, double value) {
    if (!std::isfinite(value)) return;
    auto& [sum, count] = sums_[x];
    sum += value, ++count;
  }
  Chart::Series series(std::string name) const {
    Chart::Series series{.name = std::move(name)};
    for (const auto& [x, mean] : sums_)
      series.points.emplace_back(x, mean.first / static_cast<double>(mean.second));
    return series;
  }

 private:
  std::map<double, std::pair<double, int64_t>> sums_;
};

// In the order in which they first come.
std::vector<std::string> kinds_of(const std::vector<Line>& lines) {
  std::vector<std::string> kinds;
  for (const Line& line : lines)
    if (std::ranges::find(kinds, line.kind) == kinds.end()) kinds.push_back(line.kind);
  return kinds;
}

// A series for each kind of matrix: fn(line, means) adds what a line has to say.
template <class Fn>
Chart by_kind(const std::vector<Line>& lines, Chart chart, Fn&& fn) {
  for (const std::string& kind : kinds_of(lines)) {
    Means means;
    for (const Line& line : lines)
      if (line.kind == kind) fn(line, means);
    chart.series.push_back(means.series(kind));
  }
  return chart;
}

Chart angles(const std::vector<Line>& lines) {
  Means left, right;
  for (const Line& line : lines) {
    left.add(line.step, line.left_angle);
    right.add(line.step, line.right_angle);
  }
  return {.title =
              "Angle between what was added since the last measurement and before it, mean "
              "over matrices",
          .x_title = "step",
          .y_title = "degrees",
          .series = {left.series("output side"), right.series("input side")}};
}

HeatMap layers_by_kinds(const std::vector<Line>& last) {
  HeatMap map{.title = fmt::format("Effective rank after {:.0f} steps", last.front().step),
              .corner = "layer",
              .columns = kinds_of(last)};
  for (const Line& line : last) {
    if (map.rows.empty() || map.rows.back() != line.layer) {
      map.rows.push_back(line.layer);
      map.values.emplace_back(map.columns.size(), NAN);
    }
    const auto column = std::ranges::find(map.columns, line.kind) - map.columns.begin();
    map.values.back()[static_cast<size_t>(column)] = line.effective_rank;
  }
  return map;
}

}  // namespace

void add_ranks(std::span<const Json> json, Report& report) {
  if (json.empty()) return;
  std::vector<Line> lines, last;
  for (const Json& one : json) lines.push_back(parse(one));
  for (const Line& line : lines)
    if (line.step == lines.back().step) last.push_back(line);
  report.charts.push_back(
      by_kind(lines, {.title = "Effective rank of the update, mean over layers", .x_title = "step"},
              [](const Line& line, Means& means) { means.add(line.step, line.effective_rank); }));
  report.charts.push_back(
      by_kind(last,
              {.title = "Singular values of the update in the end, mean over layers",
               .x_title = "place, from the largest",
               .log_y = true},
              [](const Line& line, Means& means) {
                for (size_t i = 0; i < line.values.size() && line.values[i] > 0; ++i)
                  means.add(static_cast<double>(i + 1), line.values[i]);
              }));
  report.charts.push_back(angles(lines));
  report.charts.push_back(by_kind(
      lines,
      {.title = "Cosine of a step with minus the gradient, mean over layers", .x_title = "step"},
      [](const Line& line, Means& means) { means.add(line.step, line.update_cosine); }));
  report.heat_maps.push_back(layers_by_kinds(last));
}

}  // namespace lapidary
