#include "lapidary/bench.h"
#include "lapidary/eval.h"

#include "base/fail.h"
#include "base/statistics.h"

namespace lapidary {

namespace {

double speed_of(SpeedBench& bench, const SpeedTest& test, const Watch& watch) {
  const SpeedResult result = bench.run(test, Watch{{}, watch.stop});
  watch.throw_if_stopped();
  return median(result.samples_ts());
}

void measure_speed(const std::shared_ptr<const Engine>& engine, const QualityOptions& options,
                   QualityRow& row, const Watch& watch) {
  SpeedBench bench(engine, {.repetitions = options.repetitions,
                            .context = std::max(options.prompt, options.gen),
                            .limits = false});
  row.prefill_tokens_per_second = speed_of(bench, {.prompt = options.prompt}, watch);
  row.decode_tokens_per_second = speed_of(bench, {.gen = options.gen}, watch);
}

QualityRow describe(const Engine& engine) {
  QualityRow row{.model = engine.folder().string(),
                 .format = engine.weight_format(),
                 .bytes = engine.weight_bytes()};
  for (const ModelPart& part : engine.parts())
    if (part.name != "norms" && part.name != "adapters") row.parameters += part.parameters;
  return row;
}

}  // namespace

double QualityRow::bits_per_weight() const {
  return 8 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

QualityTable::QualityTable(const std::filesystem::path& first,
                           const std::function<EvalText(const Engine&)>& text_of,
                           const QualityOptions& options, const Watch& watch)
    : options_(options),
      base_(Engine::load(first, options.engine)),
      text_(text_of(*base_)),
      first_(describe(*base_)) {
  measure_speed(base_, options_, first_, watch);
  first_.ppl = perplexity(base_, text_, options_.windows, watch).ppl;
  watch.throw_if_stopped();
}

QualityRow QualityTable::measure(const std::filesystem::path& model, const Watch& watch) const {
  const auto engine = Engine::load(model, options_.engine);
  QualityRow row = describe(*engine);
  measure_speed(engine, options_, row, watch);
  row.compared = compare(base_, engine, text_, options_.windows, watch);
  watch.throw_if_stopped();
  row.ppl = row.compared->ppl_b;
  return row;
}

void quality_table(std::span<const std::filesystem::path> models,
                   const std::function<EvalText(const Engine&)>& text_of,
                   const QualityOptions& options,
                   const std::function<void(const QualityRow&)>& on_row, const Watch& watch) {
  if (models.empty()) fail_usage("no model given to measure");
  const QualityTable table(models.front(), text_of, options, watch);
  on_row(table.first());
  for (const std::filesystem::path& model : models.subspan(1)) on_row(table.measure(model, watch));
}

}  // namespace lapidary
