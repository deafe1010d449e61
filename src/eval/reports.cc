#include "eval/reports.h"

#include <cmath>

#include <fmt/format.h>

#include "bench/report_parts.h"

namespace lapidary {

namespace {

// The name and both parts of an estimate, as keys.
void put(Json& json, const std::string& key, const std::string& error_key, const Estimate& e) {
  json[key] = e.value;
  json[error_key] = e.error ? Json(*e.error) : Json(nullptr);
}

std::string percent(const Estimate& e) {
  return estimate_text({100 * e.value, e.error ? std::optional(100 * *e.error) : std::nullopt}) +
         " %";
}

std::string line(const std::string& name, const std::string& value) {
  return fmt::format("{:<24} {}\n", name, value);
}

}  // namespace

std::string estimate_text(const Estimate& e) {
  // Two digits of the error, and as many decimals of the value.
  const bool shown = e.error && *e.error > 0 && std::isfinite(*e.error);
  if (!shown) return e.error ? fmt::format("{:.6g} ± 0", e.value) : fmt::format("{:.6g}", e.value);
  const int decimals = std::max(0, 1 - static_cast<int>(std::floor(std::log10(*e.error))));
  if (decimals > 9) return fmt::format("{:.3g} ± {:.1e}", e.value, *e.error);
  return fmt::format("{:.{}f} ± {:.{}f}", e.value, decimals, *e.error, decimals);
}

Json perplexity_json(const Perplexity& p) {
  Json json;
  put(json, "ppl", "ppl_stderr", p.ppl);
  put(json, "nll", "nll_stderr", p.nll);
  json.update({{"tokens", p.tokens},
               {"predicted", p.predicted},
               {"evaluated", p.evaluated},
               {"windows", p.windows},
               {"seconds", p.seconds},
               {"tokens_per_second", p.tokens_per_second()},
               {"interrupted", p.interrupted}});
  return json;
}

std::string perplexity_text(const Perplexity& p) {
  return line("perplexity", estimate_text(p.ppl)) + line("nats per token", estimate_text(p.nll)) +
         line("tokens predicted", fmt::format("{} of {}", p.predicted, p.tokens)) +
         line("speed", fmt::format("{:.1f} tokens/s ({} in {:.1f} s)", p.tokens_per_second(),
                                   p.evaluated, p.seconds));
}

Json comparison_json(const Comparison& c) {
  Json json;
  put(json, "kld_mean", "kld_stderr", c.kld);
  json.update({{"kld_median", c.kld_median},
               {"kld_p90", c.kld_p90},
               {"kld_p99", c.kld_p99},
               {"kld_max", c.kld_max}});
  put(json, "top1_agreement", "top1_stderr", c.top1);
  put(json, "ppl_a", "ppl_a_stderr", c.ppl_a);
  put(json, "ppl_b", "ppl_b_stderr", c.ppl_b);
  put(json, "ppl_ratio", "ppl_ratio_stderr", c.ppl_ratio);
  put(json, "nll_a", "nll_a_stderr", c.nll_a);
  put(json, "nll_b", "nll_b_stderr", c.nll_b);
  json.update({{"dp_top_mean_abs", c.dp_top},
               {"dp_mean", c.dp_mean},
               {"dp_rms", c.dp_rms},
               {"logit_difference_max", c.logit_difference},
               {"tokens", c.tokens},
               {"predicted", c.predicted},
               {"seconds", c.seconds},
               {"interrupted", c.interrupted}});
  return json;
}

std::string comparison_text(const Comparison& c) {
  return line("KLD(A || B), mean", estimate_text(c.kld) + " nats per token") +
         line("  median", fmt::format("{:.3g}", c.kld_median)) +
         line("  90th percentile", fmt::format("{:.3g}", c.kld_p90)) +
         line("  99th percentile", fmt::format("{:.3g}", c.kld_p99)) +
         line("  largest", fmt::format("{:.3g}", c.kld_max)) +
         line("same likeliest token", percent(c.top1)) +
         line("perplexity of A", estimate_text(c.ppl_a)) +
         line("perplexity of B", estimate_text(c.ppl_b)) +
         line("  B / A", estimate_text(c.ppl_ratio)) +
         line("|dp| of A's likeliest", fmt::format("{:.3f} % mean", 100 * c.dp_top)) +
         line("dp of the text's token",
              fmt::format("{:+.3f} % mean, {:.3f} % rms", 100 * c.dp_mean, 100 * c.dp_rms)) +
         line("largest logit difference", fmt::format("{:.4g}", c.logit_difference)) +
         line("tokens predicted",
              fmt::format("{} of {} in {:.1f} s", c.predicted, c.tokens, c.seconds));
}

namespace {

Json quality_record(const BenchHost& host, const QualityRow& row) {
  Json record = host_record(host);
  record.update({{"model", row.model},
                 {"format", row.format},
                 {"parameters", row.parameters},
                 {"bits_per_weight", row.bits_per_weight()},
                 {"bytes", row.bytes},
                 {"prefill_tokens_per_second", row.prefill_tokens_per_second},
                 {"decode_tokens_per_second", row.decode_tokens_per_second}});
  put(record, "ppl", "ppl_stderr", row.ppl);
  const char* const keys[] = {"kld_mean",       "kld_stderr",  "kld_median", "kld_p99",
                              "top1_agreement", "top1_stderr", "ppl_ratio",  "ppl_ratio_stderr"};
  const Json compared = row.compared ? comparison_json(*row.compared) : Json();
  for (const char* key : keys) record[key] = row.compared ? compared[key] : Json(nullptr);
  return record;
}

// Two that differ in the last part of their paths are told apart by it.
std::string short_name(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

}  // namespace

Report quality_report(const BenchHost& host, std::span<const QualityRow> rows,
                      const std::string& text) {
  Report report = host_report("Quality, speed and size", host);
  report.facts.push_back({"text", text});
  report.table.columns = {{"model"},        {"bits", true}, {"size", true}, {"pp t/s", true},
                          {"tg t/s", true}, {"ppl", true},  {"KLD", true},  {"top-1", true}};
  Chart chart{.kind = Chart::Kind::kBars, .title = "Mean KLD from the first", .y_title = "nats"};
  Chart::Series kld{.name = "KLD"};
  for (const QualityRow& row : rows) {
    const std::string name = short_name(row.model);
    report.facts.push_back({name, row.model + ", " + row.format});
    report.table.rows.push_back(
        {name, fmt::format("{:.2f}", row.bits_per_weight()), bytes_text(row.bytes),
         number_text(row.prefill_tokens_per_second), number_text(row.decode_tokens_per_second),
         estimate_text(row.ppl),
         row.compared ? fmt::format("{:.3g}", row.compared->kld.value) : "-",
         row.compared ? fmt::format("{:.1f} %", 100 * row.compared->top1.value) : "-"});
    report.records.push_back(quality_record(host, row));
    if (!row.compared) continue;
    kld.points.push_back({static_cast<double>(chart.labels.size()), row.compared->kld.value});
    chart.labels.push_back(name);
  }
  chart.series.push_back(std::move(kld));
  if (!chart.labels.empty()) report.charts.push_back(std::move(chart));
  report.notes = {
      "bits: of the weights' bytes per parameter. pp, tg: tokens of a prompt, and of an answer, "
      "per "
      "second. ppl: perplexity. KLD: the mean divergence of the likelihoods from the first "
      "model's, "
      "in nats per token. top-1: how often both hold the same token likeliest."};
  return report;
}

}  // namespace lapidary
