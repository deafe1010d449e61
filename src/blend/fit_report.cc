#include "blend/fit_report.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

namespace lapidary {

namespace {

std::string number(double x) {
  return fmt::format("{:.3f}", x);
}

Chart chart_of(const std::vector<std::string>& names, const BlendFit& fit) {
  if (fit.weights.front().size() == 1) {
    Chart chart{.kind = Chart::Kind::kBars, .title = "Weights found", .labels = names};
    Chart::Series series{.name = "weight"};
    for (size_t i = 0; i < names.size(); ++i) series.points.emplace_back(i, fit.weights[i].front());
    chart.series.push_back(std::move(series));
    return chart;
  }
  Chart chart{.title = "Weights found", .x_title = "layer"};
  for (size_t i = 0; i < names.size(); ++i) {
    Chart::Series series{.name = names[i]};
    for (size_t layer = 0; layer < fit.weights[i].size(); ++layer)
      series.points.emplace_back(layer, fit.weights[i][layer]);
    chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace

Report fit_report(const std::vector<std::string>& names, const BlendFit& fit) {
  Report report{.title = "Weights of adapters"};
  report.facts = {{"loss without adapters", fmt::format("{:.4f} nats per token", fit.base_loss)},
                  {"with the weights given", fmt::format("{:.4f}", fit.given_loss)},
                  {"with the weights found", fmt::format("{:.4f}", fit.loss)},
                  {"found", fmt::format("in {} passes over {} targets{}", fit.passes, fit.targets,
                                        fit.settled ? "" : ", and not settled yet")}};
  const bool by_layer = fit.weights.front().size() > 1;
  report.table.columns = {{"adapter"}, {by_layer ? "mean weight" : "weight", true}};
  if (by_layer)
    report.table.columns.insert(report.table.columns.end(), {{"least", true}, {"most", true}});
  for (size_t i = 0; i < names.size(); ++i) {
    const std::vector<double>& weights = fit.weights[i];
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<std::string> row = {names[i], number(sum / static_cast<double>(weights.size()))};
    if (by_layer) {
      row.push_back(number(std::ranges::min(weights)));
      row.push_back(number(std::ranges::max(weights)));
    }
    report.table.rows.push_back(std::move(row));
    report.records.push_back({{"adapter", names[i]}, {"weights", weights}});
  }
  report.charts = {chart_of(names, fit)};
  return report;
}

}  // namespace lapidary
