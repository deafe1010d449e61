// What was compared as text, records and reports.
#pragma once

#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "lapidary/decoding_eval.h"
#include "lapidary/eval.h"

#include "bench/reports.h"
#include "report/report.h"

namespace lapidary {

// "12.345 ± 0.067", to the digits that the error leaves worth reading.
std::string estimate_text(const Estimate& estimate);

nlohmann::ordered_json perplexity_json(const Perplexity& p);
std::string perplexity_text(const Perplexity& p);

// With the keys of the contract: kld_mean, kld_p99, top1_agreement, ppl_a, ppl_b.
nlohmann::ordered_json comparison_json(const Comparison& c);
std::string comparison_text(const Comparison& c);

// A row per model; `text` says what the models read.
Report quality_report(const BenchHost& host, std::span<const QualityRow> rows,
                      const std::string& text);

// ---- answers to prompts

struct PromptTally {
  int64_t identical = 0, same_start = 0, different = 0;
};
PromptTally tally(std::span<const PromptPair> pairs);
const char* name_of(Likeness likeness);

nlohmann::ordered_json prompts_json(const PromptModel& a, const PromptModel& b,
                                    std::span<const PromptPair> pairs);
// The pairs below the models' speed and memory, as a page.
Report prompts_report(const BenchHost& host, const PromptModel& a, const PromptModel& b,
                      std::span<const PromptPair> pairs);

// Ways of decoding: a table, and speed and passes against what they cost.
Report decoding_report(const BenchHost& host, const BenchedModel& model,
                       std::span<const DecodingResult> results);

}  // namespace lapidary
