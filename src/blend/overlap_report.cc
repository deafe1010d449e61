#include "blend/overlap_report.h"

#include <cmath>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "gemma/adapter_parts.h"

namespace lapidary {

namespace {

// Sums over matrices of a pair of adapters.
struct Tally {
  double product = 0, square_a = 0, square_b = 0;  // of the updates
  double columns = 0, rows = 0;                    // of squared cosines
  double column_count = 0, row_count = 0;

  void add(const AdapterOverlap& o) {
    product += o.cosine * o.norm_a * o.norm_b;
    square_a += o.norm_a * o.norm_a;
    square_b += o.norm_b * o.norm_b;
    for (const double c : o.column_cosines) columns += c * c, ++column_count;
    for (const double c : o.row_cosines) rows += c * c, ++row_count;
  }
  double cosine() const {
    const double norms = std::sqrt(square_a * square_b);
    return norms > 0 ? product / norms : 0;
  }
  double column_share() const { return column_count > 0 ? columns / column_count : 0; }
  double row_share() const { return row_count > 0 ? rows / row_count : 0; }
};

Chart by_layer(const char* title,
               const std::map<std::pair<size_t, size_t>, std::map<int, Tally>>& pairs,
               const std::vector<std::string>& names, double (Tally::*value)() const) {
  Chart chart{.title = title, .x_title = "layer"};
  for (const auto& [pair, layers] : pairs) {
    Chart::Series series{.name = names[pair.first] + " / " + names[pair.second]};
    for (const auto& [layer, tally] : layers) series.points.emplace_back(layer, (tally.*value)());
    chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace

Report overlap_report(const std::vector<std::string>& names,
                      std::span<const AdapterOverlap> overlaps) {
  Report report{.title = "Overlap of adapters"};
  for (size_t i = 0; i < names.size(); ++i)
    report.facts.emplace_back(fmt::format("adapter {}", i + 1), names[i]);
  std::map<std::pair<size_t, size_t>, Tally> pairs;
  std::map<std::pair<size_t, size_t>, std::map<int, Tally>> layers;
  for (const AdapterOverlap& o : overlaps) {
    pairs[{o.a, o.b}].add(o);
    layers[{o.a, o.b}][find_adapter_target(o.target)->layer].add(o);
    report.records.push_back({{"a", names[o.a]},
                              {"b", names[o.b]},
                              {"target", o.target},
                              {"norm_a", o.norm_a},
                              {"norm_b", o.norm_b},
                              {"cosine", o.cosine},
                              {"column_cosines", o.column_cosines},
                              {"row_cosines", o.row_cosines}});
  }
  report.table.columns = {
      {"A"},         {"B"}, {"|A|", true}, {"|B|", true}, {"cosine", true}, {"written", true},
      {"read", true}};
  for (const auto& [pair, tally] : pairs)
    report.table.rows.push_back(
        {names[pair.first], names[pair.second], fmt::format("{:.4g}", std::sqrt(tally.square_a)),
         fmt::format("{:.4g}", std::sqrt(tally.square_b)), fmt::format("{:.4f}", tally.cosine()),
         fmt::format("{:.3f}", tally.column_share()), fmt::format("{:.3f}", tally.row_share())});
  report.charts = {
      by_layer("Cosine between the updates", layers, names, &Tally::cosine),
      by_layer("Share of the written space in common", layers, names, &Tally::column_share),
      by_layer("Share of the read space in common", layers, names, &Tally::row_share)};
  report.notes = {
      "|A| and |B|: Frobenius norms of the updates of the matrices that both adapters have.",
      "Cosine: between those updates as vectors: 1 for the same direction, 0 for none in common.",
      "Written, read: mean squared cosine of the principal angles between the column spaces and "
      "between the row spaces: 1 where one lies in the other; r / n for random spaces of r among n "
      "dimensions."};
  return report;
}

}  // namespace lapidary
