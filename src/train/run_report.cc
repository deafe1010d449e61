#include "train/run_report.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/json.h"
#include "train/rank_report.h"

namespace lapidary {

namespace {

using Points = std::vector<std::pair<double, double>>;

// About a thousand means of neighbours.
Points thinned(const Points& points) {
  constexpr size_t kMost = 1000;
  const size_t share = (points.size() + kMost - 1) / kMost;
  if (share <= 1) return points;
  Points means;
  for (size_t first = 0; first < points.size(); first += share) {
    const size_t last = std::min(first + share, points.size());
    std::pair<double, double> mean;
    for (size_t i = first; i < last; ++i) {
      mean.first += points[i].first / static_cast<double>(last - first);
      mean.second += points[i].second / static_cast<double>(last - first);
    }
    means.push_back(mean);
  }
  return means;
}

struct Metric {
  const char* key;
  const char* title;
  const char* unit;
  double scale;
};
constexpr Metric kMetrics[] = {{"lr", "Learning rate", "", 1},
                               {"grad_norm", "Norm of the gradient, before clipping", "", 1},
                               {"tokens_per_second", "Speed", "tokens per second", 1},
                               {"peak_rss_bytes", "Memory at its peak", "GiB", 0x1p-30}};

Points points_of(const std::vector<Json>& lines, const char* key, double scale) {
  Points points;
  for (const Json& line : lines)
    if (line.contains(key) && line[key].is_number())
      points.emplace_back(line.value("step", 0.0), line[key].get<double>() * scale);
  return points;
}

// The terms of a loss with set blocks, where there are any.
void add_set_blocks(const std::vector<Json>& lines, Report& report) {
  Chart chart{.title = "Terms of the loss", .x_title = "step", .y_title = "nats per token"};
  for (const auto& [key, name] :
       {std::pair("ntp_loss", "next token"), std::pair("matp_loss", "masked tokens"),
        std::pair("valid_ntp_loss", "next token, validation"),
        std::pair("valid_matp_loss", "masked tokens, validation")})
    if (const Points points = points_of(lines, key, 1); !points.empty())
      chart.series.push_back({.name = name, .points = thinned(points)});
  if (!chart.series.empty()) report.charts.push_back(std::move(chart));
}

// Where it was measured: `key` of the training data and "valid_`key`" of the validation data.
void add_of_both(const std::vector<Json>& lines, const std::string& key, double scale, Chart chart,
                 Report& report) {
  chart.x_title = "step";
  for (const auto& [of, name] :
       {std::pair(key, "training"), std::pair("valid_" + key, "validation")})
    if (const Points points = points_of(lines, of.c_str(), scale); !points.empty())
      chart.series.push_back({.name = name, .points = points});
  if (!chart.series.empty()) report.charts.push_back(std::move(chart));
}

void add_memorization(const std::vector<Json>& lines, Report& report) {
  add_of_both(lines, "memorized_bits", 1,
              {.title = "Bits of a sequence that are known by heart",
               .y_title = "bits beyond the model before training"},
              report);
  add_of_both(lines, "extraction_rate", 100,
              {.title = "Sequences that greedy decoding completes",
               .y_title = "% of the sequences, given the first half"},
              report);
}

std::vector<Json> read_lines(const std::filesystem::path& file) {
  std::vector<Json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line, file.string()));
  return lines;
}

void add_data(const Json& config, Report& report) {
  if (!config.contains("data_report")) return;
  const Json& data = config["data_report"];
  const auto number = [&](const char* key) { return data.value(key, int64_t{0}); };
  report.facts.emplace_back("documents", std::to_string(number("documents")));
  report.facts.emplace_back("sequences", std::to_string(number("sequences")));
  if (number("truncated") > 0)
    report.facts.emplace_back("documents cut", fmt::format("{}, of {} tokens", number("truncated"),
                                                           number("truncated_tokens")));
  if (number("split") > 0)
    report.facts.emplace_back("documents split", std::to_string(number("split")));
  if (number("sequences_without_targets") > 0)
    report.facts.emplace_back("sequences left out, as nothing in them counts",
                              std::to_string(number("sequences_without_targets")));
}

}  // namespace

Report run_report(const std::filesystem::path& run) {
  const std::vector<Json> lines = read_lines(run / "metrics.jsonl");
  const Json config = read_json_file(run / "config.json");
  Report report{.title = fmt::format("Training: {}", config.value("method", ""))};
  for (const char* key : {"objective", "model", "data", "batch_size", "sequence_length",
                          "optimizer", "learning_rate", "rank", "seed"})
    if (config.contains(key))
      report.facts.emplace_back(
          key, config[key].is_string() ? config[key].get<std::string>() : shown_json(config[key]));
  add_data(config, report);
  Chart loss{.title = "Loss", .x_title = "step", .y_title = "nats per token"};
  loss.series.push_back({.name = "training", .points = thinned(points_of(lines, "loss", 1))});
  const Points valid = points_of(lines, "valid_loss", 1);
  if (!valid.empty()) loss.series.push_back({.name = "validation", .points = valid});
  report.charts.push_back(std::move(loss));
  add_set_blocks(lines, report);
  add_memorization(lines, report);
  for (const Metric& metric : kMetrics) {
    Chart chart{.title = metric.title, .x_title = "step", .y_title = metric.unit};
    chart.series.push_back(
        {.name = metric.title, .points = thinned(points_of(lines, metric.key, metric.scale))});
    report.charts.push_back(std::move(chart));
  }
  add_ranks(read_lines(run / "ranks.jsonl"), report);
  if (lines.empty()) return report;
  const Json& last = lines.back();
  report.table.columns = {{"", false}, {"first step", true}, {"last step", true}};
  for (const char* key :
       {"step", "loss", "ntp_loss", "matp_loss", "lr", "grad_norm", "tokens_per_second"})
    if (last.contains(key))
      report.table.rows.push_back({key, fmt::format("{:.4g}", lines.front().value(key, NAN)),
                                   fmt::format("{:.4g}", last.value(key, NAN))});
  for (const Json& line : lines) report.records.push_back(OrderedJson(line));
  return report;
}

}  // namespace lapidary
