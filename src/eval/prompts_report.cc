#include <fmt/format.h>

#include "bench/report_parts.h"
#include "eval/reports.h"

namespace lapidary {

namespace {

const char* finish_of(const Generation& made) {
  return made.finish_reason == FinishReason::kStop ? "stop" : "length";
}

Json answer_json(const Generation& made) {
  return {{"text", made.text},
          {"tokens", made.tokens},
          {"finish_reason", finish_of(made)},
          {"prompt_tokens", made.prompt_tokens},
          {"prefill_s", made.prefill_seconds},
          {"decode_s", made.decode_seconds}};
}

Json model_json(const PromptModel& model) {
  return {{"model", model.engine->folder().string()},
          {"format", model.engine->weight_format()},
          {"bytes", model.engine->weight_bytes()},
          {"memory_bytes", model.memory},
          {"prefill_tokens_per_second", model.prefill_tokens_per_second()},
          {"decode_tokens_per_second", model.decode_tokens_per_second()}};
}

}  // namespace

PromptTally tally(std::span<const PromptPair> pairs) {
  PromptTally counts;
  for (const PromptPair& pair : pairs)
    ++(pair.likeness == Likeness::kIdentical   ? counts.identical
       : pair.likeness == Likeness::kSameStart ? counts.same_start
                                               : counts.different);
  return counts;
}

const char* name_of(Likeness likeness) {
  switch (likeness) {
    case Likeness::kIdentical:
      return "identical";
    case Likeness::kSameStart:
      return "same start";
    case Likeness::kDifferent:
      return "different";
  }
  return "";
}

Json prompts_json(const PromptModel& a, const PromptModel& b, std::span<const PromptPair> pairs) {
  const PromptTally counts = tally(pairs);
  Json list = Json::array();
  for (const PromptPair& pair : pairs)
    list.push_back({{"id", pair.prompt.id},
                    {"category", pair.prompt.category},
                    {"prompt", pair.prompt.text},
                    {"likeness", name_of(pair.likeness)},
                    {"common_bytes", pair.common},
                    {"a", answer_json(pair.a)},
                    {"b", answer_json(pair.b)}});
  return {{"a", model_json(a)},
          {"b", model_json(b)},
          {"prompts", pairs.size()},
          {"identical", counts.identical},
          {"same_start", counts.same_start},
          {"different", counts.different},
          {"pairs", std::move(list)}};
}

Report prompts_report(const BenchHost& host, const PromptModel& a, const PromptModel& b,
                      std::span<const PromptPair> pairs) {
  Report report = host_report("Two models' answers", host);
  const PromptTally counts = tally(pairs);
  report.facts.push_back(
      {"answers", fmt::format("{} identical, {} with the same start, {} different",
                              counts.identical, counts.same_start, counts.different)});
  report.table.columns = {{"model"},     {"weights", true}, {"memory", true}, {"prompt t/s", true},
                          {"t/s", true}, {"folder"}};
  for (const auto& [name, model] : {std::pair{"A", &a}, {"B", &b}})
    report.table.rows.push_back(
        {name, bytes_text(model->engine->weight_bytes()), bytes_text(model->memory),
         number_text(model->prefill_tokens_per_second()),
         number_text(model->decode_tokens_per_second()), model->engine->folder().string()});
  for (const PromptPair& pair : pairs)
    report.comparisons.push_back({.title = pair.prompt.id,
                                  .remark = name_of(pair.likeness),
                                  .question = pair.prompt.text,
                                  .left = pair.a.text,
                                  .right = pair.b.text,
                                  .common = pair.common});
  report.notes = {"The answers are greedy. What follows the first difference is marked."};
  return report;
}

}  // namespace lapidary
