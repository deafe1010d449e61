#include "study/memory_report.h"

#include <fmt/format.h>

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

double mib(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

std::string mib_text(int64_t bytes) {
  return fmt::format("{:.1f}", mib(bytes));
}

struct Part {
  const char* name;
  int64_t MemoryParts::*bytes;
};
constexpr Part kParts[] = {{"weights", &MemoryParts::weights},
                           {"keys and values", &MemoryParts::kv_cache},
                           {"trained", &MemoryParts::trained},
                           {"optimizer", &MemoryParts::optimizer},
                           {"the rest", &MemoryParts::rest}};

// Bars in pairs, what was forecast above what was counted; parts that nothing has are left out.
Chart phase_chart(const std::string& title, const std::vector<MemoryPhase>& phases) {
  Chart chart{.kind = Chart::Kind::kBars, .title = title, .y_title = "MiB", .stacked = true};
  for (const Part& part : kParts) {
    Chart::Series series{.name = part.name};
    bool any = false;
    const auto add = [&](const MemoryParts& parts) {
      any = any || parts.*part.bytes != 0;
      series.points.emplace_back(series.points.size(), mib(parts.*part.bytes));
    };
    for (const MemoryPhase& phase : phases) {
      if (phase.predicted) add(*phase.predicted);
      add(phase.measured);
    }
    if (any) chart.series.push_back(std::move(series));
  }
  for (const MemoryPhase& phase : phases) {
    if (phase.predicted) chart.labels.push_back(phase.name + ": forecast");
    chart.labels.push_back(phase.name + ": measured");
  }
  return chart;
}

// The resident size, a colour to a phase, and what of it lies in no file.
Chart timeline_chart(const std::string& title, const std::vector<MemoryPhase>& phases,
                     const std::vector<MemorySample>& timeline, bool cache) {
  Chart chart{.title = title, .x_title = "seconds", .y_title = "MiB"};
  for (const MemoryPhase& phase : phases) {
    Chart::Series series{.name = phase.name};
    for (const MemorySample& s : timeline)
      if (s.seconds >= phase.begin && s.seconds <= phase.end)
        series.points.emplace_back(s.seconds, mib(s.total));
    // What was measured at its end: a phase may be over before it is looked at.
    series.points.emplace_back(phase.end, mib(phase.measured.total()));
    chart.series.push_back(std::move(series));
  }
  Chart::Series own{.name = "of it, in no file"}, kv{.name = "of that, keys and values"};
  for (const MemorySample& s : timeline) {
    own.points.emplace_back(s.seconds, mib(s.anonymous));
    kv.points.emplace_back(s.seconds, mib(s.kv_cache));
  }
  chart.series.push_back(std::move(own));
  if (cache) chart.series.push_back(std::move(kv));
  return chart;
}

Chart growth_chart(const std::vector<KvGrowth>& growth) {
  Chart chart{.title = "Keys and values of a full context, by type; dashed: forecast",
              .x_title = "positions",
              .y_title = "MiB"};
  for (const KvGrowth& type : growth) {
    Chart::Series measured{.name = std::string(name_of(type.type))};
    Chart::Series predicted{.name = measured.name + ", forecast", .limit = true};
    for (const KvGrowth::Point& p : type.points) {
      const auto context = static_cast<double>(p.context);
      measured.points.emplace_back(context, mib(p.measured));
      predicted.points.emplace_back(context, mib(p.predicted));
    }
    chart.series.push_back(std::move(measured));
    chart.series.push_back(std::move(predicted));
  }
  return chart;
}

// Two figures of each layer, the second dashed.
Chart layer_chart(const GenerationMemory& g, const std::string& title, const char* name,
                  int64_t LayerMemory::*bytes, const char* dashed, int64_t LayerMemory::*beside) {
  Chart chart{.title = title, .x_title = "layer", .y_title = "MiB"};
  const auto add = [&](const char* what, int64_t LayerMemory::*field, bool limit) {
    Chart::Series series{.name = what, .limit = limit};
    for (const LayerMemory& layer : g.layers)
      series.points.emplace_back(layer.layer, mib(layer.*field));
    chart.series.push_back(std::move(series));
  };
  add(name, bytes, false);
  if (beside != nullptr) add(dashed, beside, true);
  return chart;
}

Chart activations_chart(const TrainingMemory& t) {
  Chart chart{.title = "The first step by layer: what the process has of its own",
              .x_title = "layer",
              .y_title = "MiB"};
  Chart::Series forward{.name = "forward pass begins"}, backward{.name = "backward pass is done"};
  for (const LayerActivations& a : t.layers) {
    forward.points.emplace_back(a.layer, mib(a.forward));
    backward.points.emplace_back(a.layer, mib(a.backward));
  }
  chart.series = {forward, backward};
  return chart;
}

void add_rows(ReportTable& table, const char* work, const std::vector<MemoryPhase>& phases) {
  for (const MemoryPhase& phase : phases) {
    const auto row = [&](const char* which, const MemoryParts& p, const std::string& own,
                         const std::string& peak) {
      std::vector<std::string> cells = {work, phase.name, which,
                                        fmt::format("{:.3f}", phase.end - phase.begin)};
      for (const Part& part : kParts) cells.push_back(mib_text(p.*part.bytes));
      cells.insert(cells.end(), {mib_text(p.total()), own, peak});
      table.rows.push_back(std::move(cells));
    };
    if (phase.predicted) row("forecast", *phase.predicted, "", "");
    row("measured", phase.measured, mib_text(phase.anonymous), mib_text(phase.peak));
  }
}

ReportTable table(const MemoryStudy& study) {
  ReportTable table{.columns = {{"work"}, {"at the end of"}, {"MiB"}, {"seconds", true}}};
  for (const Part& part : kParts) table.columns.push_back({part.name, true});
  table.columns.push_back({"total", true});
  table.columns.push_back({"in no file", true});
  table.columns.push_back({"most", true});
  add_rows(table, "generation", study.generation.phases);
  if (study.training) add_rows(table, "training", study.training->phases);
  return table;
}

Json parts_json(const MemoryParts& p) {
  return {{"weights", p.weights},     {"kv_cache", p.kv_cache}, {"trained", p.trained},
          {"optimizer", p.optimizer}, {"rest", p.rest},         {"total", p.total()}};
}

Json phases_json(const std::vector<MemoryPhase>& phases) {
  Json list = Json::array();
  for (const MemoryPhase& phase : phases)
    list.push_back({{"name", phase.name},
                    {"begin", phase.begin},
                    {"end", phase.end},
                    {"predicted", phase.predicted ? parts_json(*phase.predicted) : Json()},
                    {"measured", parts_json(phase.measured)},
                    {"anonymous", phase.anonymous},
                    {"peak", phase.peak}});
  return list;
}

Json timeline_json(const std::vector<MemorySample>& timeline) {
  Json list = Json::array();
  for (const MemorySample& s : timeline)
    list.push_back({{"seconds", s.seconds},
                    {"total", s.total},
                    {"anonymous", s.anonymous},
                    {"kv_cache", s.kv_cache}});
  return list;
}

Json generation_json(const GenerationMemory& g) {
  Json layers = Json::array();
  for (const LayerMemory& l : g.layers)
    layers.push_back({{"layer", l.layer},
                      {"sliding", l.sliding},
                      {"weights", l.weights},
                      {"weights_cached", l.weights_cached},
                      {"kv_predicted", l.kv_predicted},
                      {"kv_cache", l.kv_cache}});
  return {{"prompt", g.prompt},
          {"generated", g.generated},
          {"kv_type", name_of(g.kv_type)},
          {"phases", phases_json(g.phases)},
          {"layers", layers},
          {"timeline", timeline_json(g.timeline)}};
}

Json growth_json(const std::vector<KvGrowth>& growth) {
  Json list = Json::array();
  for (const KvGrowth& type : growth)
    for (const KvGrowth::Point& p : type.points)
      list.push_back({{"type", name_of(type.type)},
                      {"context", p.context},
                      {"predicted", p.predicted},
                      {"measured", p.measured}});
  return list;
}

Json training_json(const TrainingMemory& t) {
  Json layers = Json::array();
  for (const LayerActivations& a : t.layers)
    layers.push_back({{"layer", a.layer}, {"forward", a.forward}, {"backward", a.backward}});
  return {{"steps", t.steps},
          {"micro_batch", t.forecast.micro_batch},
          {"checkpoint_layers", t.forecast.checkpoint_layers},
          {"forecast",
           {{"weights", t.forecast.weights},
            {"trained", t.forecast.trained},
            {"optimizer", t.forecast.optimizer},
            {"activations", t.forecast.activations},
            {"program", t.forecast.program},
            {"total", t.forecast.total()}}},
          {"phases", phases_json(t.phases)},
          {"layers", layers},
          {"timeline", timeline_json(t.timeline)}};
}

std::string cached_text(const MemoryStudy& study, std::optional<int64_t> cached) {
  if (!cached) return "unknown: the system tells the owner of the files alone";
  return fmt::format("{} of {} MiB", mib_text(*cached), mib_text(study.file_bytes));
}

}  // namespace

nlohmann::ordered_json to_json(const MemoryStudy& study) {
  const auto optional = [](std::optional<int64_t> bytes) { return bytes ? Json(*bytes) : Json(); };
  Json json = {{"file_bytes", study.file_bytes},
               {"page_cache_before", optional(study.cached_before)},
               {"page_cache_after", optional(study.cached_after)},
               {"peaks_by_phase", study.peaks_by_phase},
               {"generation", generation_json(study.generation)},
               {"kv_growth", growth_json(study.growth)}};
  if (study.training) json["training"] = training_json(*study.training);
  return json;
}

Report memory_report(const MemoryStudy& study, const std::string& model) {
  const GenerationMemory& g = study.generation;
  Report report{.title = "The memory of " + model};
  report.facts = {
      {"generation", fmt::format("{} tokens of prompt, {} made", g.prompt, g.generated)},
      {"type of the cache", std::string(name_of(g.kv_type))},
      {"files in the page cache before", cached_text(study, study.cached_before)},
      {"and after", cached_text(study, study.cached_after)}};
  report.charts = {
      phase_chart("A generation: forecast and measured", g.phases),
      timeline_chart("A generation in time: resident memory", g.phases, g.timeline, true),
      growth_chart(study.growth),
      layer_chart(g, "Keys and values by layer at the end; dashed: forecast", "keys and values",
                  &LayerMemory::kv_cache, "forecast", &LayerMemory::kv_predicted),
      study.cached_after
          ? layer_chart(g, "Weights by layer; dashed: of them in the page cache", "weights",
                        &LayerMemory::weights, "in the page cache", &LayerMemory::weights_cached)
          : layer_chart(g, "Weights by layer", "weights", &LayerMemory::weights, "", nullptr)};
  if (study.training) {
    const TrainingMemory& t = *study.training;
    report.facts.emplace_back(
        "training", fmt::format("{} steps, {} row{} at once", t.steps, t.forecast.micro_batch,
                                t.forecast.micro_batch == 1 ? "" : "s"));
    report.charts.push_back(phase_chart(
        "The first training step, and those after it: forecast and measured", t.phases));
    report.charts.push_back(
        timeline_chart("The training in time: resident memory", t.phases, t.timeline, false));
    report.charts.push_back(activations_chart(t));
  }
  report.table = table(study);
  report.notes = {
      "Measured is what the system counts for the process; docs/study.md defines the "
      "parts."};
  if (!study.peaks_by_phase)
    report.notes.push_back(
        "The system did not restart the count of the most memory: it is of the whole process.");
  report.records = to_json(study)["generation"]["phases"];
  return report;
}

}  // namespace lapidary
