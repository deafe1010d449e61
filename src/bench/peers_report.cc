#include <algorithm>

#include <fmt/format.h>

#include "base/statistics.h"
#include "bench/report_parts.h"

namespace lapidary {

namespace {

struct Medians {
  double first_token_seconds, prefill, decode;  // the others are tokens per second

  Medians(const PeerResult& r, const PeerOptions& options) {
    std::vector<double> first, making;
    for (const PeerRun& run : r.runs) {
      first.push_back(run.first_token_seconds);
      making.push_back(run.decode_seconds);
    }
    first_token_seconds = median(first);
    prefill = static_cast<double>(options.prompt) / first_token_seconds;
    decode = static_cast<double>(options.gen - 1) / median(making);
  }
};

// Tokens at the start that are the same.
int64_t agreeing(const PeerResult& a, const PeerResult& b) {
  if (a.runs.empty() || b.runs.empty()) return 0;
  const std::vector<Token>&left = a.runs[0].tokens, &right = b.runs[0].tokens;
  return std::ranges::mismatch(left, right).in1 - left.begin();
}

Json peer_record(const BenchHost& host, const BenchedModel& model, const PeerOptions& options,
                 const PeerResult& r, int64_t same) {
  const Medians m(r, options);
  Json first = Json::array(), making = Json::array();
  for (const PeerRun& run : r.runs) {
    first.push_back(run.first_token_seconds);
    making.push_back(run.decode_seconds);
  }
  Json record = host_record(host);
  record.update({{"name", r.name},
                 {"model_filename", model.filename},
                 {"model_type", model.type},
                 {"n_prompt", options.prompt},
                 {"n_gen", options.gen},
                 {"load_s", r.load_seconds},
                 {"ttft_s", m.first_token_seconds},
                 {"prefill_tokens_per_second", m.prefill},
                 {"decode_tokens_per_second", m.decode},
                 {"peak_rss_bytes", r.peak_rss_bytes},
                 {"tokens_agreeing", same},
                 {"samples_ttft_s", first},
                 {"samples_decode_s", making}});
  return record;
}

}  // namespace

Report peers_report(const BenchHost& host, const BenchedModel& model, const PeerOptions& options,
                    std::span<const PeerResult> results) {
  Report report = model_report("Programs that run " + model.type, host, model);
  report.facts.push_back({"test", fmt::format("{} tokens of prompt, {} made, medians of {}",
                                              options.prompt, options.gen, options.repetitions)});
  report.table.columns = {{"program"},   {"load s", true}, {"first s", true}, {"prompt t/s", true},
                          {"t/s", true}, {"memory", true}, {"same", true}};
  Chart prefill{.kind = Chart::Kind::kBars, .title = "Reading the prompt", .y_title = "tokens/s"};
  Chart decode{.kind = Chart::Kind::kBars, .title = "Decoding", .y_title = "tokens/s"};
  prefill.series = {{.name = "tokens per second"}};
  decode.series = prefill.series;
  for (const PeerResult& r : results) {
    const Medians m(r, options);
    const int64_t same = agreeing(results.front(), r);
    report.table.rows.push_back({r.name, fmt::format("{:.2f}", r.load_seconds),
                                 fmt::format("{:.2f}", m.first_token_seconds),
                                 fmt::format("{:.2f}", m.prefill), fmt::format("{:.2f}", m.decode),
                                 bytes_text(r.peak_rss_bytes),
                                 fmt::format("{}/{}", same, options.gen)});
    report.records.push_back(peer_record(host, model, options, r, same));
    const auto index = static_cast<double>(decode.labels.size());
    prefill.labels.push_back(r.name);
    decode.labels.push_back(r.name);
    prefill.series[0].points.push_back({index, m.prefill});
    decode.series[0].points.push_back({index, m.decode});
  }
  report.charts = {prefill, decode};
  report.notes = {
      "Greedy decoding of the same random prompt; the programs took turns on this machine. same: "
      "tokens at the start that are those of the first row. Of a random model all tokens are "
      "nearly as likely as each other, so that rounding decides which is made."};
  return report;
}

}  // namespace lapidary
