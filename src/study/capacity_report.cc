#include "study/capacity_report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "study/capacity_file.h"
#include "study/training_cells.h"

namespace lapidary {

namespace {

constexpr double kKilo = 1000;

std::string kilo(double value) {
  return fmt::format("{:.1f}", value / kKilo);
}

std::string name_of(int64_t parameters) {
  return fmt::format("{} parameters", parameters);
}

// A line for each size: the y of its runs, at their x.
Chart chart_of_runs(const CapacityStudy& study, Chart chart, double (*x)(const CapacityRun&),
                    double (*y)(const CapacityRun&)) {
  for (const CapacityOfSize& size : study.sizes) {
    Chart::Series series{.name = name_of(size.parameters)};
    for (const CapacityRun& run : study.runs)
      if (run.parameters == size.parameters) series.points.emplace_back(x(run), y(run));
    chart.series.push_back(std::move(series));
  }
  return chart;
}

Chart fit_chart(const CapacityStudy& study) {
  Chart chart{.title = "Capacity by size; dashed: the fit",
              .x_title = "thousands of parameters",
              .y_title = "thousands of bits"};
  Chart::Series found{.name = "the most bits of a run"};
  Chart::Series line{.name = "fit", .points = {{0, 0}}, .limit = true};
  for (const CapacityOfSize& size : study.sizes) {
    const double p = static_cast<double>(size.parameters) / kKilo;
    found.points.emplace_back(p, size.capacity_bits / kKilo);
    line.points.emplace_back(p, p * study.bits_per_parameter);
  }
  chart.series = {std::move(found), std::move(line)};
  return chart;
}

ReportTable table(const CapacityStudy& study) {
  ReportTable t{.columns = {{"parameters", true},
                            {"sequences", true},
                            {"data, kbit", true},
                            {"memorised, kbit", true},
                            {"share", true},
                            {"bits per parameter", true},
                            {"unseen data", true},
                            {"epochs", true},
                            {"steps", true},
                            {"time, s", true}}};
  std::vector<CapacityRun> runs = study.runs;
  runs.insert(runs.end(), study.halves.begin(), study.halves.end());
  for (const CapacityRun& r : runs)
    t.rows.push_back(
        {std::to_string(r.parameters), std::to_string(r.sequences), kilo(r.data_bits),
         kilo(r.memorized_bits), fmt::format("{:.1f} %", 100 * r.memorized_bits / r.data_bits),
         fmt::format("{:.3f}", r.bits_per_parameter()),
         fmt::format("{:.4f}", r.control_bits / static_cast<double>(r.parameters)),
         std::to_string(r.epochs), std::to_string(r.steps), fmt::format("{:.0f}", r.seconds)});
  return t;
}

std::string plateaus(const CapacityStudy& study) {
  const auto over = [&](bool CapacityOfSize::*reached) {
    return std::ranges::count(study.sizes, true, reached);
  };
  return fmt::format("over data {}, over training {}, of {} sizes",
                     over(&CapacityOfSize::data_plateau), over(&CapacityOfSize::training_plateau),
                     study.sizes.size());
}

}  // namespace

std::vector<std::string> capacity_remarks(const CapacityStudy& study) {
  std::vector<std::string> remarks;
  for (const CapacityOfSize& size : study.sizes) {
    if (!size.gain_of_data)
      remarks.push_back(fmt::format(
          "{} parameters: one data set alone does not show a plateau over data", size.parameters));
    else if (!size.data_plateau)
      remarks.push_back(fmt::format(
          "{} parameters: no plateau over data, the largest set brings {:+.1f} % over the one "
          "before{}",
          size.parameters, 100 * *size.gain_of_data,
          *size.gain_of_data < kPlateauGain ? ", which is too near to it to show one"
                                            : "; larger sets may bring more"));
    if (!size.training_plateau)
      remarks.push_back(fmt::format(
          "{} parameters: no plateau over training, which brought {:+.1f} % over half as long; "
          "the capacity is at least what was found",
          size.parameters, 100 * size.gain_of_training));
  }
  return remarks;
}

Report capacity_report(const CapacityStudy& study) {
  const CapacityOptions& o = study.options;
  Report report{.title = "How many bits models hold"};
  report.facts = {
      {"bits per parameter", fmt::format("{:.2f}", study.bits_per_parameter)},
      {"largest distance of a size from that",
       fmt::format("{:.1f} %", 100 * study.largest_residual)},
      {"plateaus", plateaus(study)},
      {"data", fmt::format("sequences of {} tokens, uniform over {}; the first is not predicted",
                           o.recipe.length, o.vocabulary)},
      {"training", fmt::format("{} epochs, {}", o.epochs, recipe_text(o.recipe))},
      {"arithmetic", "f32"}};
  report.charts = {
      chart_of_runs(
          study,
          {.title = "What is memorised of data sets of growing size",
           .x_title = "thousands of bits in the data",
           .y_title = "thousands of bits memorised"},
          [](const CapacityRun& r) { return r.data_bits / kKilo; },
          [](const CapacityRun& r) { return r.memorized_bits / kKilo; }),
      chart_of_runs(
          study,
          {.title = "The same by parameter",
           .x_title = "bits in the data per parameter",
           .y_title = "bits memorised per parameter"},
          [](const CapacityRun& r) { return r.data_bits / static_cast<double>(r.parameters); },
          [](const CapacityRun& r) { return r.bits_per_parameter(); }),
      fit_chart(study)};
  report.table = table(study);
  report.notes = capacity_remarks(study);
  report.notes.push_back(
      "The last rows of the table are of half the training. docs/study.md defines the figures.");
  report.records = to_json(study)["runs"];
  return report;
}

}  // namespace lapidary
