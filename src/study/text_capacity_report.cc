#include "study/text_capacity_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "study/text_capacity_file.h"
#include "study/training_cells.h"

namespace lapidary {

namespace {

using Run = TextCapacityRun;

struct Curve {
  const char* name;
  double (*of)(const Run&);
  bool pale = false;  // drawn dashed
};

double over_capacity(const TextCapacityOfSize& size, const Run& run) {
  return run.data_bits / size.capacity_bits;
}

// Each curve of each size, by what its data have of the size's capacity, and a line where that is
// all of it.
Chart chart_of(const TextCapacityStudy& study, std::string title, std::string y_title,
               const std::vector<Curve>& curves) {
  Chart chart{.title = std::move(title),
              .x_title = "bits of data over the capacity (dashed: 1)",
              .y_title = std::move(y_title),
              .log_x = true};
  double highest = 0;
  for (const TextCapacityOfSize& size : study.sizes)
    for (const Curve& curve : curves) {
      Chart::Series series{
          .name = study.sizes.size() == 1
                      ? std::string(curve.name)
                      : fmt::format("{}, {} parameters", curve.name, size.parameters),
          .limit = curve.pale};
      for (const Run& run : size.runs) {
        series.points.emplace_back(over_capacity(size, run), curve.of(run));
        highest = std::max(highest, series.points.back().second);
      }
      chart.series.push_back(std::move(series));
    }
  chart.series.push_back(
      {.name = "as many as the capacity", .points = {{1, 0}, {1, highest}}, .limit = true});
  return chart;
}

std::vector<Chart> charts(const TextCapacityStudy& study) {
  return {chart_of(study, "Loss", "nats per token",
                   {{"trained on", [](const Run& r) { return r.train_loss; }},
                    {"held out", [](const Run& r) { return r.test_loss; }}}),
          chart_of(study, "Memorised bits of a sequence", "bits beyond the reference",
                   {{"trained on", [](const Run& r) { return r.memorized_bits; }},
                    {"held out", [](const Run& r) { return r.test_memorized_bits; }}}),
          chart_of(study, "Memorised bits of all of the data", "bits per parameter",
                   {{"trained on", [](const Run& r) { return r.memorized_bits_per_parameter(); }}}),
          chart_of(study, "Sequences that greedy decoding completes", "% of the sequences",
                   {{"trained on", [](const Run& r) { return 100 * r.extraction_rate; }},
                    {"held out", [](const Run& r) { return 100 * r.test_extraction_rate; }}}),
          chart_of(study, "How well losses tell what was trained on; dashed: F1 by the law",
                   "F1 and AUC",
                   {{"F1", [](const Run& r) { return r.membership.f1; }},
                    {"F1 by the law", [](const Run& r) { return r.expected_f1; }, true},
                    {"AUC", [](const Run& r) { return r.membership.auc; }}})};
}

void add_row(ReportTable& table, const TextCapacityOfSize& size, const Run& r) {
  table.rows.push_back(
      {std::to_string(r.parameters), std::to_string(r.sequences), fmt::format("{:.2f}", r.load),
       fmt::format("{:.3g}", over_capacity(size, r)), fmt::format("{:.3f}", r.train_loss),
       fmt::format("{:.3f}", r.test_loss), fmt::format("{:.1f}", r.memorized_bits),
       fmt::format("{:.1f}", r.test_memorized_bits),
       fmt::format("{:.2f}", r.memorized_bits_per_parameter()),
       fmt::format("{:.1f}", 100 * r.extraction_rate),
       fmt::format("{:.1f}", 100 * r.test_extraction_rate), fmt::format("{:.3f}", r.membership.auc),
       fmt::format("{:.3f}", r.membership.f1), fmt::format("{:.3f}", r.expected_f1),
       std::to_string(r.steps), fmt::format("{:.0f}", r.seconds)});
}

ReportTable table(const TextCapacityStudy& study) {
  ReportTable t;
  for (const char* title :
       {"parameters", "sequences", "data, bits per parameter", "over capacity", "loss", "held out",
        "memorised, bits of a sequence", "held out", "bits per parameter", "extracted, %",
        "held out, %", "AUC", "F1", "by the law", "steps", "time, s"})
    t.columns.push_back({title, true});
  for (const TextCapacityOfSize& size : study.sizes) {
    for (const Run& run : size.runs) add_row(t, size, run);
    add_row(t, size, size.half);
  }
  return t;
}

std::string at(const TextCapacityOfSize& size, size_t run) {
  return fmt::format("{} sequences, {:.3g} times the capacity", size.runs[run].sequences,
                     over_capacity(size, size.runs[run]));
}

std::string passing(const TextCapacityOfSize& size, const char* what,
                    const std::optional<size_t>& run) {
  if (!run) return fmt::format("{} stay within the capacity", what);
  return fmt::format("{} pass the capacity at {} sequences", what, size.runs[*run].sequences);
}

std::string descent_of(const TextCapacityOfSize& size) {
  const auto& found = size.double_descent;
  if (!found) return "no double descent: the loss of what was held out does not rise and then fall";
  return fmt::format(
      "double descent: the loss of what was held out rises by {:.3f} nats up to {}, and falls by "
      "{:.3f} after",
      found->rise, at(size, found->peak), found->fall);
}

std::string grokking_of(const TextCapacityOfSize& size) {
  if (!size.grokking)
    return "no grokking point: memorised bits of a sequence were not seen to fall";
  return fmt::format("grokking point: memorised bits of a sequence fall beyond {}",
                     at(size, *size.grokking));
}

}  // namespace

std::vector<std::string> text_capacity_findings(const TextCapacityStudy& study) {
  std::vector<std::string> findings;
  for (const TextCapacityOfSize& size : study.sizes) {
    const auto add = [&](const std::string& text) {
      findings.push_back(fmt::format("{} parameters: {}", size.parameters, text));
    };
    add(descent_of(size));
    add(grokking_of(size));
    add(fmt::format("{}, {}", passing(size, "bits of data", size.data_pass),
                    passing(size, "those that the reference needs", size.reference_pass)));
    const Run& most = size.runs[size.most_memorized];
    add(fmt::format("most is memorised, {:.2f} bits per parameter, at {}",
                    most.memorized_bits_per_parameter(), at(size, size.most_memorized)));
    if (!size.gain_of_training)
      add("a plateau over training was not looked for: the amount next to the capacity is all of "
          "the text, the reference");
    else if (!size.training_plateau)
      add(
          fmt::format("no plateau over training: at {} sequences all steps brought {:+.1f} % of "
                      "memorised bits over half of them",
                      size.half.sequences, 100 * *size.gain_of_training));
  }
  return findings;
}

Report text_capacity_report(const TextCapacityStudy& study) {
  const TextCapacityOptions& o = study.options;
  Report report{.title = "Where learning a text by heart ends"};
  report.facts = {
      {"text", fmt::format("{}: {} sequences of {} tokens to train on, {} held out, {} left out "
                           "that were there already",
                           o.text.filename().string(), study.sequences, o.recipe.length, o.held_out,
                           study.duplicates)},
      {"tokens",
       fmt::format("{}; {} occur, and the first of a sequence is not predicted",
                   o.tokenizer.empty() ? "bytes" : o.tokenizer.string(), study.vocabulary)},
      {"reference", "the model of the same size that was trained on all of the text"},
      {"capacity", fmt::format("{} bits per parameter, as study capacity finds it", o.capacity)},
      {"training", fmt::format("{} steps, {}", o.steps, recipe_text(o.recipe))},
      {"arithmetic", "f32"}};
  report.charts = charts(study);
  report.table = table(study);
  report.notes = text_capacity_findings(study);
  report.notes.push_back(
      "The last row of a size is of half the training. docs/study.md defines the figures.");
  for (const TextCapacityOfSize& size : study.sizes)
    for (const Run& run : size.runs) report.records.push_back(to_json(run));
  return report;
}

}  // namespace lapidary
