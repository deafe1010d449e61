#include "lapidary/bench.h"
#include "lapidary/eval.h"

#include "base/fail.h"
#include "bench/statistics.h"

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
    if (part.name != "norms") row.parameters += part.parameters;
  return row;
}

}  // namespace

double QualityRow::bits_per_weight() const {
  return 8 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

void quality_table(std::span<const std::filesystem::path> models,
                   const std::function<EvalText(const Engine&)>& text_of,
                   const QualityOptions& options,
                   const std::function<void(const QualityRow&)>& on_row, const Watch& watch) {
  if (models.empty()) fail_usage("no model given to measure");
  const auto base = Engine::load(models.front(), options.engine);
  const EvalText text = text_of(*base);
  QualityRow first = describe(*base);
  measure_speed(base, options, first, watch);
  const Perplexity alone = perplexity(base, text, options.windows, watch);
  watch.throw_if_stopped();
  first.ppl = alone.ppl;
  on_row(first);
  for (const std::filesystem::path& folder : models.subspan(1)) {
    const auto engine = Engine::load(folder, options.engine);
    QualityRow row = describe(*engine);
    measure_speed(engine, options, row, watch);
    row.compared = compare(base, engine, text, options.windows, watch);
    watch.throw_if_stopped();
    row.ppl = row.compared->ppl_b;
    on_row(row);
  }
}

}  // namespace lapidary
