#include "study/reach_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "study/pieces_report.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

// What a change adds, and where its interval ends.
Chart gain_chart(const ReachStudy& study, bool to_local) {
  Chart chart{.kind = Chart::Kind::kBars,
              .title = fmt::format("Loss that is added when {} layers are made {}",
                                   to_local ? "global" : "local", to_local ? "local" : "global"),
              .y_title = "nats per token",
              .series = {{.name = "added"}}};
  Chart::Series end{.name = "far end of the 95 % interval", .limit = true};
  for (const ReachChange& change : study.changes) {
    if (change.to_local != to_local) continue;
    const auto x = static_cast<double>(chart.labels.size());
    chart.labels.push_back(change.layer < 0 ? "all" : fmt::format("layer {}", change.layer));
    chart.series[0].points.emplace_back(x, change.gain.mean);
    if (const auto margin = change.gain.margin)
      end.points.emplace_back(x, change.gain.mean + (change.gain.mean < 0 ? -*margin : *margin));
  }
  if (!end.points.empty()) chart.series.push_back(std::move(end));
  return chart;
}

}  // namespace

std::string name_of(const ReachChange& change) {
  const char* to = change.to_local ? "local" : "global";
  if (change.layer >= 0) return fmt::format("layer {} made {}", change.layer, to);
  return fmt::format("all {} layers made {}", change.to_local ? "global" : "local", to);
}

nlohmann::ordered_json to_json(const ReachStudy& study) {
  Json changes = Json::array();
  for (const ReachChange& c : study.changes)
    changes.push_back({{"layer", c.layer < 0 ? Json(nullptr) : Json(c.layer)},
                       {"made", c.to_local ? "local" : "global"},
                       {"nll", to_json(c.nll)},
                       {"gain", to_json(c.gain)}});
  return {{"pieces", study.pieces},   {"piece_tokens", study.piece_tokens},
          {"window", study.window},   {"predicted", study.predicted},
          {"sliding", study.sliding}, {"nll", to_json(study.nll)},
          {"changes", changes},       {"seconds", study.seconds}};
}

Report reach_report(const ReachStudy& study, const Engine& engine) {
  Report report{.title = "What the reach of attention is worth to " +
                         engine.folder().filename().string()};
  const auto local = std::ranges::count(study.sliding, true);
  report.facts = {
      {"layers", fmt::format("{} local, {} global", local, std::ssize(study.sliding) - local)},
      {"window of local layers", fmt::format("{} tokens", study.window)},
      {"text", fmt::format("{} pieces of {} tokens, {} of each predicted", study.pieces,
                           study.piece_tokens, study.predicted)},
      {"loss as it is", measured(study.nll, 4) + " nats per token"},
      {"time", fmt::format("{:.1f} s", study.seconds)}};
  for (const bool to_local : {true, false}) report.charts.push_back(gain_chart(study, to_local));
  report.table.columns = {{"change"}, {"loss", true}, {"added, nats per token", true}};
  for (const ReachChange& c : study.changes)
    report.table.rows.push_back({name_of(c), measured(c.nll, 4), measured(c.gain, 4)});
  report.notes = {
      "Loss is the mean of -ln p over the tokens that have more than a window of text before them; "
      "what is added is compared piece by piece, with 95 % intervals over the pieces (Student's "
      "t). A layer keeps its rotation: only how far back it sees is changed. docs/study.md says "
      "more."};
  report.records = to_json(study)["changes"];
  return report;
}

}  // namespace lapidary
