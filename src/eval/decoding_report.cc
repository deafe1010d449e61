#include <map>

#include <fmt/format.h>

#include "bench/report_parts.h"
#include "eval/reports.h"

namespace lapidary {

namespace {

// A line for each size of block, a point for each gamma; the other ways are points by themselves.
std::string line_of(const DecodeOptions& d) {
  if (d.mode != DecodeMode::kSetBlock) return std::string(name_of(d.mode));
  return fmt::format("blocks of {}{}", d.set_block.block,
                     d.set_block.order == RevealOrder::kEntropy
                         ? ""
                         : fmt::format(" by {}", name_of(d.set_block.order)));
}

template <class Y>
Chart pareto(std::span<const DecodingResult> results, const char* title, const char* y_title,
             Y&& y) {
  Chart chart{.title = title, .x_title = "tokens per second", .y_title = y_title};
  std::map<std::string, size_t> lines;
  for (const DecodingResult& r : results) {
    const auto [line, added] = lines.try_emplace(line_of(r.decode), chart.series.size());
    if (added) chart.series.push_back({.name = line->first});
    chart.series[line->second].points.emplace_back(r.tokens_per_second(), y(r));
  }
  return chart;
}

Chart places(std::span<const DecodingResult> results, const char* title, const char* y_title,
             std::vector<double> BlockFilling::*figure) {
  Chart chart{.title = title, .x_title = "place in the block", .y_title = y_title};
  for (const DecodingResult& r : results) {
    const std::vector<double>& values = r.filling.*figure;
    if (values.size() < 2) continue;
    chart.series.push_back({.name = name_of(r.decode)});
    for (size_t place = 0; place < values.size(); ++place)
      chart.series.back().points.emplace_back(place + 1, values[place]);
  }
  return chart;
}

Json decoding_record(const BenchHost& host, const BenchedModel& model, const DecodingResult& r) {
  const bool blocks = r.decode.mode == DecodeMode::kSetBlock;
  const bool drafted = r.decode.mode == DecodeMode::kBlockDraft;
  const bool guesses = r.decode.mode == DecodeMode::kNgram || r.decode.mode == DecodeMode::kDraft;
  const SetBlockOptions& b = r.decode.set_block;
  Json record = host_record(host);
  record.update({{"isa", model.isa},
                 {"model_filename", model.filename},
                 {"model_type", model.type},
                 {"compute", model.compute},
                 {"decode", name_of(r.decode.mode)},
                 {"draft_max", guesses ? Json(r.decode.draft_max) : Json()},
                 {"block", blocks || drafted ? Json(b.block) : Json()},
                 {"gamma", blocks ? Json(fmt::format("{}", b.gamma)) : Json()},
                 {"order", blocks ? Json(name_of(b.order)) : Json()},
                 {"prompts", r.prompts},
                 {"tokens", r.tokens},
                 {"forward_passes", r.forward_passes},
                 {"tokens_per_pass", r.tokens_per_pass()},
                 {"tokens_per_second", r.tokens_per_second()},
                 {"identical", r.identical},
                 {"nll", r.nll},
                 {"accuracy", r.accuracy ? Json(*r.accuracy) : Json()},
                 {"entropy_by_place", r.filling.entropy},
                 {"pass_by_place", r.filling.pass},
                 {"seconds", r.seconds}});
  return record;
}

}  // namespace

Report decoding_report(const BenchHost& host, const BenchedModel& model,
                       std::span<const DecodingResult> results) {
  Report report = model_report("Decoding of " + model.type, host, model);
  const bool known = !results.empty() && results.front().accuracy;
  report.table.columns = {{"way"},       {"tokens", true}, {"passes", true},   {"a pass", true},
                          {"t/s", true}, {"speed", true},  {"the same", true}, {"nll", true}};
  if (known) report.table.columns.push_back({"right", true});
  for (const DecodingResult& r : results) {
    const double ordinary = results.front().tokens_per_second();
    report.table.rows.push_back(
        {name_of(r.decode), std::to_string(r.tokens), std::to_string(r.forward_passes),
         fmt::format("{:.2f}", r.tokens_per_pass()), fmt::format("{:.1f}", r.tokens_per_second()),
         fmt::format("{:.2f}x", ordinary > 0 ? r.tokens_per_second() / ordinary : 0),
         fmt::format("{}/{}", r.identical, r.prompts), fmt::format("{:.3f}", r.nll)});
    if (known) report.table.rows.back().push_back(fmt::format("{:.1f} %", 100 * *r.accuracy));
    report.records.push_back(decoding_record(host, model, r));
  }
  if (known)
    report.charts.push_back(pareto(results, "Right answers and speed", "right answers, %",
                                   [](const DecodingResult& r) { return 100 * *r.accuracy; }));
  report.charts.push_back(pareto(results, "Likelihood and speed", "nats per token",
                                 [](const DecodingResult& r) { return r.nll; }));
  for (Chart& chart : std::vector{
           places(results, "When places are decided", "pass of the block", &BlockFilling::pass),
           places(results, "How sure they are then", "nats", &BlockFilling::entropy)})
    if (!chart.series.empty()) report.charts.push_back(std::move(chart));
  report.notes = {
      "a pass: tokens for each pass of the model after the prompt's. the same: answers that have "
      "the tokens of ordinary decoding. nll: nats per token of the answers, by the model's "
      "ordinary "
      "next-token distribution; lower is likelier."};
  if (known) report.notes.back() += " right: answers that equal the known ones.";
  return report;
}

}  // namespace lapidary
