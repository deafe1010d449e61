#include "study/attention_lengths_report.h"

#include <fmt/format.h>

#include "study/attention_report.h"
#include "study/pieces_report.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

struct Figure {
  const char* title;
  const char* y;
  MeanOfPieces AttentionAtLength::*value;
  int decimals;
};
constexpr Figure kFigures[] = {
    {"Entropy of the weights", "nats", &AttentionAtLength::entropy, 3},
    {"Effective number of keys: e to the entropy", "keys", &AttentionAtLength::effective_keys, 1},
    {"How far back heads look", "tokens, mean", &AttentionAtLength::distance, 1},
    {"Weight on the first token", "weight", &AttentionAtLength::sink, 3},
    {"Weight on the token before", "weight", &AttentionAtLength::previous, 3},
    {"Weight on the token before, of the head that has the most", "weight",
     &AttentionAtLength::best_previous, 3}};

// A line for each kind of layers.
template <class Value>
Chart chart_of(const AttentionByLength& study, const char* title, const char* y, Value&& value) {
  Chart chart{.title = title, .x_title = "tokens that may be seen", .y_title = y, .log_x = true};
  for (const bool sliding : {true, false}) {
    Chart::Series series{.name = sliding ? "local layers" : "global layers"};
    for (const AttentionAtLength& at : study.kinds)
      if (const std::optional<MeanOfPieces> v = value(at); at.sliding == sliding && v)
        series.points.emplace_back(static_cast<double>(at.length), v->mean);
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

ReportTable table(const AttentionByLength& study) {
  ReportTable table{.columns = {{"tokens", true},
                                {"layers"},
                                {"entropy", true},
                                {"keys", true},
                                {"distance", true},
                                {"first", true},
                                {"before", true},
                                {"most before", true},
                                {"induction", true}}};
  for (const AttentionAtLength& at : study.kinds) {
    table.rows.push_back({std::to_string(at.length), at.sliding ? "local" : "global"});
    for (const Figure& f : kFigures) table.rows.back().push_back(measured(at.*f.value, f.decimals));
    table.rows.back().push_back(at.best_induction ? measured(*at.best_induction, 3) : "");
  }
  return table;
}

// A head's figure at each length; rows are heads of global layers, then of local ones.
HeatMap by_head(const AttentionByLength& study, const Config& config, const char* title,
                double HeadFigures::*figure) {
  HeatMap map{.title = title, .corner = "layer.head"};
  for (const int64_t length : study.lengths) map.columns.push_back(std::to_string(length));
  for (const bool sliding : {false, true})
    for (size_t i = 0; i < study.heads.front().size(); ++i) {
      const HeadFigures& head = study.heads.front()[i];
      if (config.is_sliding(head.layer) != sliding) continue;
      map.rows.push_back(
          fmt::format("{}.{} {}", head.layer, head.head, sliding ? "local" : "global"));
      map.values.emplace_back();
      for (const auto& heads : study.heads) map.values.back().push_back(heads[i].*figure);
    }
  return map;
}

}  // namespace

nlohmann::ordered_json to_json(const AttentionByLength& study) {
  Json kinds = Json::array(), heads = Json::array();
  for (const AttentionAtLength& at : study.kinds)
    kinds.push_back(
        {{"length", at.length},
         {"sliding", at.sliding},
         {"entropy", to_json(at.entropy)},
         {"effective_keys", to_json(at.effective_keys)},
         {"distance", to_json(at.distance)},
         {"sink", to_json(at.sink)},
         {"previous", to_json(at.previous)},
         {"self", to_json(at.self)},
         {"best_previous", to_json(at.best_previous)},
         {"best_induction", at.best_induction ? to_json(*at.best_induction) : Json(nullptr)}});
  for (size_t i = 0; i < study.lengths.size(); ++i)
    for (const HeadFigures& head : study.heads[i]) {
      Json json = {{"length", study.lengths[i]}};
      json.update(to_json(head));
      heads.push_back(std::move(json));
    }
  return {{"pieces", study.pieces}, {"queries", study.queries}, {"lengths", study.lengths},
          {"kinds", kinds},         {"heads", heads},           {"seconds", study.seconds}};
}

Report attention_lengths_report(const AttentionByLength& study, const Engine& engine) {
  Report report{.title = "What " + engine.folder().filename().string() +
                         " looks at in longer and longer texts"};
  report.facts = {
      {"lengths", fmt::format("{} to {} tokens", study.lengths.front(), study.lengths.back())},
      {"text", fmt::format("{} pieces, the last {} queries of each", study.pieces, study.queries)},
      {"window of local layers", fmt::format("{} tokens", engine.config().sliding_window)},
      {"time", fmt::format("{:.1f} s", study.seconds)}};
  for (const Figure& f : kFigures)
    report.charts.push_back(chart_of(study, f.title, f.y, [&](const AttentionAtLength& at) {
      return std::optional(at.*f.value);
    }));
  Chart induction = chart_of(
      study, "Induction: weight on what came after the same token, of the head with the most",
      "weight", [](const AttentionAtLength& at) { return at.best_induction; });
  if (!induction.series.empty()) report.charts.push_back(std::move(induction));
  report.heat_maps = {by_head(study, engine.config(), "Effective number of keys of every head",
                              &HeadFigures::effective_keys),
                      by_head(study, engine.config(), "Weight on the first token of every head",
                              &HeadFigures::sink)};
  report.table = table(study);
  report.notes = {
      "The same queries at every length: the last of each piece of the text, with as many of the "
      "tokens before them. ± is half a 95 % interval over the pieces (Student's t). docs/study.md "
      "defines the figures."};
  report.records = to_json(study)["heads"];
  return report;
}

}  // namespace lapidary
