#include "bench/reports.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "base/system.h"
#include "bench/build_info.h"
#include "bench/statistics.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;
using Facts = std::vector<std::pair<std::string, std::string>>;

Facts host_facts(const BenchHost& host) {
  return {{"processor", host.cpu}, {"lapidary", fmt::format("{} ({})", host.commit, host.number)}};
}

// Three significant digits and more where there are more before the point.
std::string number_text(double value) {
  return value >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

std::string percent(double share) {
  return fmt::format("{:.0f} %", 100 * share);
}

// "1B", "270M": how a model of that many parameters is called.
std::string size_name(int64_t parameters) {
  const auto n = static_cast<double>(parameters);
  if (n >= 0.95e9) return fmt::format("{:.2g}B", n / 1e9);
  return n >= 10e6 ? fmt::format("{:.0f}M", n / 1e6) : fmt::format("{:.2g}M", n / 1e6);
}

double share_of(const Ceiling& ceiling, double tokens_per_second) {
  return tokens_per_second / ceiling.tokens_per_second;
}

Json to_record(const BenchHost& host, const BenchedModel& model, const SpeedResult& r) {
  const std::vector<double> ts = r.samples_ts();
  const std::vector<double> ns(r.samples_ns.begin(), r.samples_ns.end());
  const auto whole = [](double value) { return static_cast<int64_t>(value + 0.5); };
  const double speed = mean(ts);
  const bool limited = !r.ceiling.name.empty();
  return {{"build_commit", host.commit},
          {"build_number", host.number},
          {"cpu_info", host.cpu},
          {"backends", "CPU"},
          {"isa", model.isa},
          {"model_filename", model.filename},
          {"model_type", model.type},
          {"model_size", model.bytes},
          {"model_n_params", model.parameters},
          {"compute", model.compute},
          {"n_batch", r.test.batch},
          {"n_threads", r.threads},
          {"type_k", model.kv_type},
          {"type_v", model.kv_type},
          {"n_prompt", r.test.prompt},
          {"n_gen", r.test.gen},
          {"n_depth", r.test.depth},
          {"test", name_of(r.test)},
          {"test_time", r.time},
          {"avg_ns", whole(mean(ns))},
          {"stddev_ns", whole(standard_deviation(ns))},
          {"median_ns", whole(median(ns))},
          {"avg_ts", speed},
          {"stddev_ts", standard_deviation(ts)},
          {"median_ts", median(ts)},
          {"bytes_per_token", r.work.bytes},
          {"flop_per_token", r.work.flops},
          {"gb_per_s", r.work.bytes * speed / 1e9},
          {"tflop_per_s", r.work.flops * speed / 1e12},
          {"limit", limited ? Json(r.ceiling.value) : Json(nullptr)},
          {"limit_unit", limited ? Json(r.ceiling.unit) : Json(nullptr)},
          {"limit_name", limited ? Json(r.ceiling.name) : Json(nullptr)},
          {"limit_ts", limited ? Json(r.ceiling.tokens_per_second) : Json(nullptr)},
          {"share_of_limit", limited ? Json(share_of(r.ceiling, speed)) : Json(nullptr)},
          {"samples_ns", r.samples_ns},
          {"samples_ts", ts}};
}

ReportTable speed_table(const BenchedModel& model, std::span<const SpeedResult> results) {
  const bool batches = std::any_of(results.begin(), results.end(),
                                   [](const SpeedResult& r) { return r.test.batch != 1; });
  ReportTable table;
  table.columns = {{"model"}, {"size", true}, {"params", true}, {"backend"}, {"threads", true}};
  if (batches) table.columns.push_back({"n_batch", true});
  for (const char* title : {"test", "t/s", "GB/s", "TFLOP/s"})
    table.columns.push_back({title, true});
  table.columns.push_back({"share of limit"});
  for (const SpeedResult& r : results) {
    const std::vector<double> ts = r.samples_ts();
    const double speed = mean(ts);
    std::vector<std::string> row = {
        model.type, fmt::format("{:.2f} GiB", static_cast<double>(model.bytes) / (1 << 30)),
        fmt::format("{:.2f} B", static_cast<double>(model.parameters) / 1e9),
        fmt::format("CPU {}", model.isa), std::to_string(r.threads)};
    if (batches) row.push_back(std::to_string(r.test.batch));
    row.push_back(name_of(r.test));
    row.push_back(fmt::format("{:.2f} ± {:.2f}", speed, standard_deviation(ts)));
    row.push_back(fmt::format("{:.2f}", r.work.bytes * speed / 1e9));
    row.push_back(fmt::format("{:.3f}", r.work.flops * speed / 1e12));
    row.push_back(r.ceiling.name.empty()
                      ? "-"
                      : fmt::format("{} of {} {} ({})", percent(share_of(r.ceiling, speed)),
                                    number_text(r.ceiling.value), r.ceiling.unit, r.ceiling.name));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string series_name(const SpeedResult& r, bool by_depth) {
  std::string name = by_depth ? (r.test.prompt > 0 ? fmt::format("pp{}", r.test.prompt)
                                                   : fmt::format("tg{}", r.test.gen))
                              : name_of(r.test);
  if (r.test.batch != 1) name += fmt::format(", {} sessions", r.test.batch);
  return name + fmt::format(", {} thread{}", r.threads, r.threads == 1 ? "" : "s");
}

Chart bar_chart(std::span<const SpeedResult> results) {
  Chart chart{.kind = Chart::Kind::kBars, .title = "Tokens per second", .y_title = "tokens/s"};
  Chart::Series speed{.name = "measured"}, limit{.name = "at the machine's limit", .limit = true};
  for (const SpeedResult& r : results) {
    const auto index = static_cast<double>(chart.labels.size());
    chart.labels.push_back(series_name(r, false));
    speed.points.push_back({index, mean(r.samples_ts())});
    limit.points.push_back({index, r.ceiling.tokens_per_second});
  }
  chart.series.push_back(speed);
  const bool limited = std::any_of(results.begin(), results.end(),
                                   [](const SpeedResult& r) { return !r.ceiling.name.empty(); });
  if (limited) chart.series.push_back(limit);
  return chart;
}

Chart depth_chart(std::span<const SpeedResult> results) {
  Chart chart{
      .title = "Speed along the context", .x_title = "tokens before", .y_title = "tokens/s"};
  std::vector<std::pair<Chart::Series, Chart::Series>> lines;  // measured, and its limit
  for (const SpeedResult& r : results) {
    const std::string name = series_name(r, true);
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const auto& l) { return l.first.name == name; });
    if (line == lines.end())
      line = lines.insert(line, {{.name = name}, {.name = name + ", limit", .limit = true}});
    const auto depth = static_cast<double>(r.test.depth);
    line->first.points.push_back({depth, mean(r.samples_ts())});
    if (!r.ceiling.name.empty())
      line->second.points.push_back({depth, r.ceiling.tokens_per_second});
  }
  for (const auto& [measured, limit] : lines) {
    chart.series.push_back(measured);
    if (!limit.points.empty()) chart.series.push_back(limit);
  }
  return chart;
}

Report speed_report_without_charts(const BenchHost& host, const BenchedModel& model,
                                   std::span<const SpeedResult> results) {
  Report report{.title = "Speed of " + model.type, .facts = host_facts(host)};
  report.facts.push_back({"model", model.filename});
  report.facts.push_back({"kernels", model.isa});
  report.facts.push_back({"arithmetic", model.compute + ", keys and values in " + model.kv_type});
  report.table = speed_table(model, results);
  for (const SpeedResult& r : results) report.records.push_back(to_record(host, model, r));
  report.notes = {
      "pp: tokens of a prompt read at once. tg: tokens made one after another. @ d: after that "
      "many tokens. The rates are means; ± is a standard deviation.",
      "The limit is what the test would reach first: the rate at which memory can be read, or the "
      "rate of the arithmetic unit that these kernels use, both measured between the repetitions. "
      "Bytes and operations are the least that the test needs."};
  return report;
}

}  // namespace

BenchHost this_host() {
  return {cpu_name(), std::string(build_commit()), build_number()};
}

BenchedModel describe_model(const Engine& engine) {
  std::string family = engine.config().model_type;
  if (const size_t text = family.find("_text"); text != std::string::npos) family.resize(text);
  return {.filename = engine.folder().string(),
          .type = fmt::format("{} {} {}", family, size_name(engine.parameters()),
                              engine.weight_format()),
          .bytes = engine.weight_bytes(),
          .parameters = engine.parameters(),
          .isa = engine.isa(),
          .compute = engine.compute() == Compute::kExact ? "exact" : "fast",
          .kv_type = engine.kv_type() == KvType::kF32 ? "f32" : "bf16"};
}

Report limits_report(const BenchHost& host, std::span<const Limit> limits) {
  Report report{.title = "What this machine can do", .facts = host_facts(host)};
  report.table.columns = {{"limit"},        {"threads", true}, {"best", true},
                          {"median", true}, {"unit"},          {"how"}};
  std::map<std::string, Chart> charts;  // by the unit's last part: bytes, operations
  for (const Limit& limit : limits) {
    const double best = *std::max_element(limit.samples.begin(), limit.samples.end());
    report.table.rows.push_back({limit.name, std::to_string(limit.threads), number_text(best),
                                 number_text(median(limit.samples)), limit.unit, limit.what});
    report.records.push_back({{"build_commit", host.commit},
                              {"build_number", host.number},
                              {"cpu_info", host.cpu},
                              {"name", limit.name},
                              {"isa", limit.isa},
                              {"what", limit.what},
                              {"n_threads", limit.threads},
                              {"unit", limit.unit},
                              {"best", best},
                              {"median", median(limit.samples)},
                              {"samples", limit.samples}});
    const bool reads = limit.unit == "GB/s";
    Chart& chart = charts[reads ? "bytes" : "operations"];
    chart.kind = Chart::Kind::kBars;
    chart.title = reads ? "Reading memory" : "Arithmetic in registers";
    chart.y_title = reads ? "GB/s" : "10^12 operations/s";
    auto label = std::find(chart.labels.begin(), chart.labels.end(), limit.name);
    if (label == chart.labels.end()) label = chart.labels.insert(label, limit.name);
    const std::string name =
        limit.threads == 1 ? "1 thread" : fmt::format("{} threads", limit.threads);
    auto series = std::find_if(chart.series.begin(), chart.series.end(),
                               [&](const Chart::Series& s) { return s.name == name; });
    if (series == chart.series.end())
      series = chart.series.insert(series, Chart::Series{.name = name});
    series->points.push_back({static_cast<double>(label - chart.labels.begin()), best});
  }
  for (auto& [kind, chart] : charts) report.charts.push_back(std::move(chart));
  report.notes = {"GB is 10^9 bytes. A multiplication and an addition are two operations."};
  return report;
}

Report speed_report(const BenchHost& host, const BenchedModel& model,
                    std::span<const SpeedResult> results) {
  Report report = speed_report_without_charts(host, model, results);
  report.charts.push_back(bar_chart(results));
  const bool depths = std::any_of(results.begin(), results.end(), [&](const SpeedResult& r) {
    return r.test.depth != results.front().test.depth;
  });
  if (depths) report.charts.push_back(depth_chart(results));
  return report;
}

Report curve_report(const BenchHost& host, const BenchedModel& model,
                    std::span<const SpeedResult> results) {
  Report report = speed_report_without_charts(host, model, results);
  report.charts.push_back(depth_chart(results));
  return report;
}

}  // namespace lapidary
