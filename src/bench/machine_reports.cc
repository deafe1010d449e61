#include <algorithm>

#include <fmt/format.h>

#include "base/statistics.h"
#include "bench/report_parts.h"

namespace lapidary {

namespace {

// A bar for each limit, in a colour for each number of threads.
Chart limits_chart(std::span<const Limit> limits, bool reads) {
  Chart chart{.kind = Chart::Kind::kBars,
              .title = reads ? "Reading memory" : "Arithmetic in registers",
              .y_title = reads ? "GB/s" : "10^12 operations/s"};
  for (const Limit& limit : limits) {
    if ((limit.unit == "GB/s") != reads) continue;
    auto label = std::find(chart.labels.begin(), chart.labels.end(), limit.name);
    if (label == chart.labels.end()) label = chart.labels.insert(label, limit.name);
    const std::string name =
        limit.threads == 1 ? "1 thread" : fmt::format("{} threads", limit.threads);
    auto series = std::find_if(chart.series.begin(), chart.series.end(),
                               [&](const Chart::Series& s) { return s.name == name; });
    if (series == chart.series.end())
      series = chart.series.insert(series, Chart::Series{.name = name});
    series->points.push_back(
        {static_cast<double>(label - chart.labels.begin()), std::ranges::max(limit.samples)});
  }
  return chart;
}

// The shares of the limit that the kernels of one table reach.
Chart shares_chart(std::span<const KernelResult> results, const std::string& isa) {
  Chart chart{.kind = Chart::Kind::kBars,
              .title = isa + ": share of the limit",
              .y_title = "percent",
              .series = {{.name = isa}}};
  for (const KernelResult& r : results) {
    if (r.isa != isa || !r.correct || r.ceiling.name.empty()) continue;
    const double share = 1 / r.seconds / r.ceiling.tokens_per_second;
    chart.series[0].points.push_back({static_cast<double>(chart.labels.size()), 100 * share});
    chart.labels.push_back(fmt::format("{} {}", r.op, r.shape));
  }
  return chart;
}

// What was found wrong was not timed: its speed is unknown, not 0.
std::vector<std::string> kernel_row(const KernelResult& r) {
  if (!r.correct) return {r.isa, r.op, r.shape, "WRONG", "-", "-", "-", "-"};
  return {r.isa,
          r.op,
          r.shape,
          fmt::format("{:.1e}", r.error),
          number_text(r.seconds * 1e6),
          number_text(r.work.bytes / r.seconds / 1e9),
          number_text(r.work.flops / r.seconds / 1e9),
          limit_cells(r.ceiling, 1 / r.seconds).back()};
}

Json kernel_record(const BenchHost& host, const KernelResult& r) {
  const auto measured = [&](double value) { return r.correct ? Json(value) : Json(nullptr); };
  Json record = host_record(host);
  record.update({{"isa", r.isa},
                 {"op", r.op},
                 {"shape", r.shape},
                 {"correct", r.correct},
                 {"error", r.error},
                 {"seconds", measured(r.seconds)},
                 {"bytes", r.work.bytes},
                 {"flop", r.work.flops},
                 {"gb_per_s", measured(r.work.bytes / r.seconds / 1e9)},
                 {"tflop_per_s", measured(r.work.flops / r.seconds / 1e12)}});
  record.update(limit_record(r.correct ? r.ceiling : Ceiling{}, 1 / r.seconds));
  return record;
}

}  // namespace

Report limits_report(const BenchHost& host, std::span<const Limit> limits) {
  Report report = host_report("What this machine can do", host);
  report.table.columns = {{"limit"}, {"threads", true}, {"best", true}, {"median", true}, {"unit"}};
  for (const Limit& limit : limits) {
    const double best = std::ranges::max(limit.samples);
    report.table.rows.push_back({limit.name, std::to_string(limit.threads), number_text(best),
                                 number_text(median(limit.samples)), limit.unit});
    Json record = host_record(host);
    record.update({{"name", limit.name},
                   {"isa", limit.isa},
                   {"what", limit.what},
                   {"n_threads", limit.threads},
                   {"unit", limit.unit},
                   {"best", best},
                   {"median", median(limit.samples)},
                   {"samples", limit.samples}});
    report.records.push_back(std::move(record));
  }
  for (const bool reads : {true, false}) {
    Chart chart = limits_chart(limits, reads);
    if (!chart.labels.empty()) report.charts.push_back(std::move(chart));
  }
  report.notes = {"GB is 10^9 bytes. A multiplication and an addition are two operations."};
  return report;
}

Report kernels_report(const BenchHost& host, std::span<const KernelResult> results) {
  Report report = host_report("Kernels", host);
  report.table.columns = {{"kernels"},  {"operation"},  {"shape"},         {"error", true},
                          {"us", true}, {"GB/s", true}, {"GFLOP/s", true}, {"share", true}};
  std::vector<std::string> tables;
  for (const KernelResult& r : results) {
    report.table.rows.push_back(kernel_row(r));
    report.records.push_back(kernel_record(host, r));
    if (std::ranges::find(tables, r.isa) == tables.end()) tables.push_back(r.isa);
  }
  for (const std::string& isa : tables) {
    Chart chart = shares_chart(results, isa);
    if (!chart.labels.empty()) report.charts.push_back(std::move(chart));
  }
  report.notes = {
      "The error is the root mean square of the difference from ref, over that of ref. The limit "
      "is what the operation would reach first: of matmul memory or arithmetic, of the others, "
      "whose "
      "data stay in the caches, arithmetic. Operations on whole numbers count as FLOP."};
  return report;
}

}  // namespace lapidary
