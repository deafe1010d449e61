#include "study/memorization_report.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace lapidary {

namespace {

constexpr size_t kBars = 10;
constexpr size_t kListed = 20;

OrderedJson sequences_json(const std::vector<SequenceMemory>& sequences) {
  OrderedJson list = OrderedJson::array();
  for (const SequenceMemory& s : sequences)
    list.push_back({{"sequence", s.sequence},
                    {"tokens", s.tokens},
                    {"reference_nats", s.reference_nats},
                    {"model_nats", s.model_nats},
                    {"bits", s.bits},
                    {"extracted", s.extracted}});
  return list;
}

OrderedJson side_json(const std::vector<SequenceMemory>& sequences) {
  return {{"mean_bits", mean_bits(sequences)},
          {"extraction_rate", extraction_rate(sequences)},
          {"sequences", sequences_json(sequences)}};
}

double bits_per_token(const SequenceMemory& s) {
  return s.bits / static_cast<double>(s.tokens);
}

// Shares of the sequences by memorised bits per token.
Chart histogram(const MemorizationStudy& study) {
  double most = 0;
  for (const auto* side : {&study.members, &study.others})
    for (const SequenceMemory& s : *side) most = std::max(most, bits_per_token(s));
  Chart chart{.kind = Chart::Kind::kBars,
              .title = "Memorised bits per token",
              .x_title = "bits per token",
              .y_title = "share of the sequences"};
  const double width = most > 0 ? most / kBars : 1;
  for (size_t i = 0; i < kBars; ++i)
    chart.labels.push_back(fmt::format("{:.2f} to {:.2f}", width * static_cast<double>(i),
                                       width * static_cast<double>(i + 1)));
  const auto add = [&](const char* name, const std::vector<SequenceMemory>& side) {
    std::array<double, kBars> shares{};
    for (const SequenceMemory& s : side)
      shares[std::min(kBars - 1, static_cast<size_t>(bits_per_token(s) / width))] +=
          1 / static_cast<double>(side.size());
    Chart::Series series{.name = name};
    for (size_t i = 0; i < kBars; ++i)
      series.points.emplace_back(static_cast<double>(i), shares[i]);
    chart.series.push_back(std::move(series));
  };
  add("trained on", study.members);
  add("held out", study.others);
  return chart;
}

ReportTable most_memorized(const MemorizationStudy& study) {
  std::vector<SequenceMemory> sequences = study.members;
  std::ranges::stable_sort(sequences, std::greater(), bits_per_token);
  if (sequences.size() > kListed) sequences.resize(kListed);
  ReportTable t{.columns = {{"sequence", true},
                            {"tokens", true},
                            {"bits", true},
                            {"per token", true},
                            {"nats, reference", true},
                            {"nats, model", true},
                            {"extracted"}}};
  for (const SequenceMemory& s : sequences)
    t.rows.push_back({std::to_string(s.sequence), std::to_string(s.tokens),
                      fmt::format("{:.1f}", s.bits), fmt::format("{:.2f}", bits_per_token(s)),
                      fmt::format("{:.1f}", s.reference_nats), fmt::format("{:.1f}", s.model_nats),
                      s.extracted ? "yes" : ""});
  return t;
}

std::string told(const Membership& m) {
  return fmt::format("AUC {:.3f}, F1 {:.3f}", m.auc, m.f1);
}

}  // namespace

OrderedJson to_json(const Membership& m) {
  return {{"auc", m.auc},
          {"f1", m.f1},
          {"threshold", m.threshold},
          {"precision", m.precision},
          {"recall", m.recall}};
}

OrderedJson to_json(const MemorizationStudy& study) {
  return {{"parameters", study.parameters},
          {"data_sequences", study.data_sequences},
          {"data_tokens", study.data_tokens},
          {"data_bits_per_parameter", study.data_bits_per_parameter},
          {"membership_by_loss", to_json(study.by_loss)},
          {"membership_by_gain", to_json(study.by_gain)},
          {"expected_f1", study.expected_f1},
          {"members", side_json(study.members)},
          {"others", side_json(study.others)}};
}

Report memorization_report(const MemorizationStudy& study, const Engine& model,
                           const Engine& reference) {
  Report report{.title = "What " + model.folder().filename().string() + " knows by heart"};
  report.facts = {
      {"reference", reference.folder().filename().string()},
      {"sequences, trained on and held out",
       fmt::format("{} of {}, {}", study.members.size(), study.data_sequences,
                   study.others.size())},
      {"memorised bits of a sequence",
       fmt::format("{:.2f}, held out {:.2f}", mean_bits(study.members), mean_bits(study.others))},
      {"extracted", fmt::format("{:.1f} %, held out {:.1f} %", 100 * extraction_rate(study.members),
                                100 * extraction_rate(study.others))},
      {"members told by their loss", told(study.by_loss)},
      {"members told by what the model gained", told(study.by_gain)},
      {"F1 by the law, of training from scratch",
       fmt::format("{:.3f} at {:.3g} bits of data per parameter", study.expected_f1,
                   study.data_bits_per_parameter)}};
  report.charts = {histogram(study)};
  report.table = most_memorized(study);
  report.notes = {
      "The table has the sequences of which most is known. docs/study.md defines the "
      "figures."};
  report.records = to_json(study)["members"]["sequences"];
  return report;
}

}  // namespace lapidary
