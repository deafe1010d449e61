#include "study/layer_capacity_report.h"

#include <utility>

#include <fmt/format.h>

#include "study/layer_capacity_file.h"
#include "study/training_cells.h"

namespace lapidary {

namespace {

using Run = LayerCapacityRun;

Chart bars(const LayerCapacityStudy& study, std::string title, std::string y_title,
           double (*learnt)(const Run&), double (*control)(const Run&)) {
  Chart chart{.kind = Chart::Kind::kBars,
              .title = std::move(title),
              .x_title = "layer with an adapter",
              .y_title = std::move(y_title),
              .series = {{.name = "learnt"}, {.name = "not learnt"}}};
  for (const Run& run : study.runs) {
    const auto x = static_cast<double>(chart.labels.size());
    chart.labels.push_back(layer_name(run));
    chart.series[0].points.emplace_back(x, learnt(run));
    chart.series[1].points.emplace_back(x, control(run));
  }
  return chart;
}

ReportTable table(const LayerCapacityStudy& study) {
  ReportTable t{.columns = {{"layer", true},
                            {"parameters", true},
                            {"memorised, bits", true},
                            {"of the data", true},
                            {"bits per parameter", true},
                            {"not learnt, bits", true},
                            {"loss", true},
                            {"steps", true},
                            {"time, s", true}}};
  for (const Run& r : study.runs)
    t.rows.push_back(
        {layer_name(r), std::to_string(r.parameters), fmt::format("{:.0f}", r.memorized_bits),
         fmt::format("{:.1f} %", 100 * r.memorized_bits / r.data_bits),
         fmt::format("{:.3f}", r.bits_per_parameter()), fmt::format("{:.0f}", r.control_bits),
         fmt::format("{:.3f}", r.loss), std::to_string(r.steps), fmt::format("{:.0f}", r.seconds)});
  return t;
}

}  // namespace

std::string layer_name(const Run& run) {
  return run.layer == Run::kAllLayers ? "all" : std::to_string(run.layer);
}

Report layer_capacity_report(const LayerCapacityStudy& study) {
  const LayerCapacityOptions& o = study.options;
  const std::string model = (o.model / "").parent_path().filename().string();
  Report report{.title = "Which layers of " + model + " learn by heart"};
  report.facts = {
      {"data", o.data.empty() ? fmt::format("{} sequences of {} tokens, uniform over {}",
                                            o.sequences, o.recipe.length, study.vocabulary)
                              : fmt::format("{} sequences of {}, {} tokens at most", o.sequences,
                                            o.data.filename().string(), o.recipe.length)},
      {"bits in the data",
       fmt::format("{:.0f}, {}", study.runs.back().data_bits,
                   o.data.empty() ? "its entropy" : "what the model needs for it")},
      {"adapters", fmt::format("rank {}, on all matrices of a layer", o.rank)},
      {"training", fmt::format("{} steps, {}", o.steps, recipe_text(o.recipe))},
      {"arithmetic", "f32"}};
  report.charts = {
      bars(
          study, "Bits memorised", "bits", [](const Run& r) { return r.memorized_bits; },
          [](const Run& r) { return r.control_bits; }),
      bars(
          study, "The same by parameter", "bits per parameter of the adapter",
          [](const Run& r) { return r.bits_per_parameter(); },
          [](const Run& r) { return r.control_bits / static_cast<double>(r.parameters); })};
  report.table = table(study);
  report.notes = {kLowerBound, "docs/study.md defines the figures."};
  report.records = to_json(study)["runs"];
  return report;
}

}  // namespace lapidary
