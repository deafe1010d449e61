#include "bench/reports.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/statistics.h"
#include "base/system.h"
#include "bench/build_info.h"
#include "bench/report_parts.h"

namespace lapidary {

namespace {

// "1B", "270M": how a model of that many parameters is called.
std::string size_name(int64_t parameters) {
  const auto n = static_cast<double>(parameters);
  if (n >= 0.95e9) return fmt::format("{:.2g}B", n / 1e9);
  return n >= 10e6 ? fmt::format("{:.0f}M", n / 1e6) : fmt::format("{:.2g}M", n / 1e6);
}

Json to_record(const BenchHost& host, const BenchedModel& model, const SpeedResult& r) {
  const std::vector<double> ts = r.samples_ts();
  const std::vector<double> ns(r.samples_ns.begin(), r.samples_ns.end());
  const auto whole = [](double value) { return static_cast<int64_t>(value + 0.5); };
  const double speed = mean(ts);
  Json record = host_record(host);
  record.update({{"backends", "CPU"},
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
                 {"tflop_per_s", r.work.flops * speed / 1e12}});
  record.update(limit_record(r.ceiling, speed));
  record.update({{"samples_ns", r.samples_ns}, {"samples_ts", ts}});
  return record;
}

// A column for what is not the same in every test.
struct Variation {
  explicit Variation(std::span<const SpeedResult> results) {
    for (const SpeedResult& r : results) {
      threads = threads || r.threads != results.front().threads;
      batches = batches || r.test.batch != 1;
    }
  }
  bool threads = false, batches = false;
};

ReportTable speed_table(std::span<const SpeedResult> results) {
  const Variation vary(results);
  ReportTable table;
  if (vary.threads) table.columns.push_back({"threads", true});
  if (vary.batches) table.columns.push_back({"sessions", true});
  for (const char* title : {"test", "t/s", "GB/s", "TFLOP/s"})
    table.columns.push_back({title, true});
  table.columns.insert(table.columns.end(), kLimitColumns.begin(), kLimitColumns.end());
  for (const SpeedResult& r : results) {
    const std::vector<double> ts = r.samples_ts();
    const double speed = mean(ts);
    std::vector<std::string> row;
    if (vary.threads) row.push_back(std::to_string(r.threads));
    if (vary.batches) row.push_back(std::to_string(r.test.batch));
    row.push_back(name_of(r.test));
    row.push_back(fmt::format("{:.2f} ± {:.2f}", speed, standard_deviation(ts)));
    row.push_back(number_text(r.work.bytes * speed / 1e9));
    row.push_back(number_text(r.work.flops * speed / 1e12));
    for (std::string& cell : limit_cells(r.ceiling, speed)) row.push_back(std::move(cell));
    table.rows.push_back(std::move(row));
  }
  return table;
}

// What tells the test from the others; without its depth where that is an axis.
std::string series_name(const SpeedResult& r, const Variation& vary, bool with_depth) {
  SpeedTest test = r.test;
  if (!with_depth) test.depth = 0;
  std::string name = name_of(test);
  if (test.batch != 1) name += fmt::format(", {} sessions", test.batch);
  if (vary.threads) name += fmt::format(", {} thread{}", r.threads, r.threads == 1 ? "" : "s");
  return name;
}

Chart bar_chart(std::span<const SpeedResult> results) {
  Chart chart{.kind = Chart::Kind::kBars, .title = "Tokens per second", .y_title = "tokens/s"};
  Chart::Series speed{.name = "measured"}, limit{.name = "at the machine's limit", .limit = true};
  const Variation vary(results);
  for (const SpeedResult& r : results) {
    const auto index = static_cast<double>(chart.labels.size());
    chart.labels.push_back(series_name(r, vary, true));
    speed.points.push_back({index, mean(r.samples_ts())});
    limit.points.push_back({index, r.ceiling.tokens_per_second});
  }
  chart.series.push_back(speed);
  const bool limited = std::any_of(results.begin(), results.end(),
                                   [](const SpeedResult& r) { return !r.ceiling.name.empty(); });
  if (limited) chart.series.push_back(limit);
  return chart;
}

// Of the prompts or of the steps, which are of different magnitudes.
Chart depth_chart(std::span<const SpeedResult> results, bool prompts) {
  Chart chart{.title = prompts ? "Reading a prompt, along the context (dashed: the limit)"
                               : "Decoding, along the context (dashed: the limit)",
              .x_title = "tokens before",
              .y_title = "tokens/s"};
  const Variation vary(results);
  std::vector<std::pair<Chart::Series, Chart::Series>> lines;  // measured, and its limit
  for (const SpeedResult& r : results) {
    if ((r.test.prompt > 0) != prompts) continue;
    const std::string name = series_name(r, vary, false);
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

void add_depth_charts(Report& report, std::span<const SpeedResult> results) {
  for (const bool prompts : {true, false}) {
    Chart chart = depth_chart(results, prompts);
    if (!chart.series.empty()) report.charts.push_back(std::move(chart));
  }
}

Report speed_report_without_charts(const BenchHost& host, const BenchedModel& model,
                                   std::span<const SpeedResult> results) {
  Report report = model_report("Speed of " + model.type, host, model);
  if (!results.empty() && !Variation(results).threads)
    report.facts.push_back({"threads", std::to_string(results.front().threads)});
  report.table = speed_table(results);
  for (const SpeedResult& r : results) report.records.push_back(to_record(host, model, r));
  report.notes = {
      "pp: tokens of a prompt read at once. tg: tokens made one after another. @ d: after that "
      "many tokens. The rates are means; ± is a standard deviation.",
      "The limit is what the test would reach first: the rate at which memory can be read, or the "
      "rate of the arithmetic unit that these kernels use, both measured between the repetitions. "
      "Bytes and operations are the least that the test needs."};
  return report;
}

Json natural_record(const BenchHost& host, const BenchedModel& model, const NaturalResult& r,
                    int64_t file_bytes, int64_t peak_rss_bytes) {
  Json record = host_record(host);
  record.update({{"model_filename", model.filename},
                 {"model_type", model.type},
                 {"name", r.name},
                 {"prompt", r.prompt},
                 {"prompt_tokens", r.prompt_tokens},
                 {"tokens", r.tokens},
                 {"ended", r.ended},
                 {"decode_tokens_per_second", r.decode_tokens_per_second},
                 {"prefill_tokens_per_second", r.prefill_tokens_per_second},
                 {"ttft_s", r.first_token_seconds},
                 {"peak_rss_bytes", peak_rss_bytes},
                 {"file_bytes", file_bytes},
                 {"text", r.text}});
  return record;
}

}  // namespace

BenchHost this_host() {
  return {cpu_name(), std::string(build_commit()), build_number()};
}

BenchedModel describe_model(const Engine& engine) {
  std::string family = engine.config().model_type;
  if (const size_t text = family.find("_text"); text != std::string::npos) family.resize(text);
  std::string adapters;
  for (const ModelPart& part : engine.parts())
    if (part.name == "adapters") adapters = " + adapters of " + size_name(part.parameters);
  return {.filename = engine.folder().string(),
          .type = fmt::format("{} {} {}{}", family, size_name(engine.parameters()),
                              engine.weight_format(), adapters),
          .bytes = engine.weight_bytes(),
          .parameters = engine.parameters(),
          .isa = engine.isa(),
          .compute = engine.compute() == Compute::kExact ? "exact" : "fast",
          .kv_type = std::string(name_of(engine.kv_type()))};
}

Report speed_report(const BenchHost& host, const BenchedModel& model,
                    std::span<const SpeedResult> results) {
  Report report = speed_report_without_charts(host, model, results);
  report.charts.push_back(bar_chart(results));
  const bool depths = std::any_of(results.begin(), results.end(), [&](const SpeedResult& r) {
    return r.test.depth != results.front().test.depth;
  });
  if (depths) add_depth_charts(report, results);
  return report;
}

Report curve_report(const BenchHost& host, const BenchedModel& model,
                    std::span<const SpeedResult> results) {
  Report report = speed_report_without_charts(host, model, results);
  add_depth_charts(report, results);
  return report;
}

Report natural_report(const BenchHost& host, const BenchedModel& model,
                      std::span<const NaturalResult> results, int64_t file_bytes,
                      int64_t peak_rss_bytes) {
  Report report = model_report("Answers of " + model.type, host, model);
  report.facts.push_back({"files", bytes_text(file_bytes)});
  report.facts.push_back({"memory, at most", bytes_text(peak_rss_bytes)});
  report.table.columns = {{"question"},  {"prompt", true},     {"answer", true}, {"end"},
                          {"t/s", true}, {"prompt t/s", true}, {"first s", true}};
  Chart chart{.kind = Chart::Kind::kBars, .title = "Decoding", .y_title = "tokens/s"};
  Chart::Series speed{.name = "tokens per second"};
  for (const NaturalResult& r : results) {
    report.table.rows.push_back({r.name, std::to_string(r.prompt_tokens), std::to_string(r.tokens),
                                 r.ended ? "natural" : "cut off",
                                 fmt::format("{:.2f}", r.decode_tokens_per_second),
                                 fmt::format("{:.2f}", r.prefill_tokens_per_second),
                                 fmt::format("{:.2f}", r.first_token_seconds)});
    report.records.push_back(natural_record(host, model, r, file_bytes, peak_rss_bytes));
    report.notes.push_back(fmt::format("{} Answer: {}", r.prompt, r.text));
    speed.points.push_back({static_cast<double>(chart.labels.size()), r.decode_tokens_per_second});
    chart.labels.push_back(fmt::format("{}, {} tokens", r.name, r.tokens));
  }
  chart.series.push_back(std::move(speed));
  report.charts.push_back(std::move(chart));
  return report;
}

}  // namespace lapidary
