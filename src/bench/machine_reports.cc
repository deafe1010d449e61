#include <algorithm>

#include <fmt/format.h>

#include "bench/report_parts.h"
#include "bench/statistics.h"

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

}  // namespace lapidary
