#include "isolate/record.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <string_view>

#include "base/fail.h"
#include "base/json.h"

namespace lapidary {

namespace {

constexpr std::string_view kVerdicts[] = {"1", "2", "tie",
                                          "invalid"};  // by JudgementRecord::Verdict

}  // namespace

OrderedJson to_json(const ContextRecord& r) {
  return {{"example", r.example}, {"condition", r.condition}, {"name", r.name},
          {"tokens", r.tokens},   {"prefilled", r.prefilled}, {"restored", r.restored},
          {"bytes", r.bytes},     {"begin", r.begin},         {"end", r.end}};
}

OrderedJson to_json(const OutputRecord& r) {
  return {{"example", r.example},
          {"condition", r.condition},
          {"name", r.name},
          {"cluster", r.cluster},
          {"context", r.context},
          {"seed", r.seed},
          {"prompt_tokens", r.prompt_tokens},
          {"reused_tokens", r.reused_tokens},
          {"tokens", r.tokens},
          {"text", r.text},
          {"finish_reason", r.finish_reason},
          {"begin", r.begin},
          {"end", r.end},
          {"seconds", r.seconds}};
}

OrderedJson to_json(const MeasureRecord& r) {
  OrderedJson json = {{"example", r.example}, {"condition", r.condition}, {"name", r.name}};
  for (const auto& [name, value] : r.measures) json["measures"][name] = value;
  return json;
}

OrderedJson to_json(const JudgementRecord& r) {
  return {{"model", r.model},   {"example", r.example},
          {"output", r.output}, {"first", r.first},
          {"second", r.second}, {"verdict", kVerdicts[static_cast<size_t>(r.verdict)]},
          {"reason", r.reason}};
}

JudgementRecord judgement_record(const Json& json, const std::string& where) {
  const JsonObject o(json, where);
  const std::string verdict = o.string("verdict");
  const auto found = std::ranges::find(kVerdicts, verdict);
  if (found == std::end(kVerdicts))
    o.fail_field("verdict", "expected 1, 2, tie or invalid, found \"" + verdict + "\"");
  return {.model = o.string("model"),
          .example = o.string("example"),
          .output = o.string("output"),
          .first = o.string("first"),
          .second = o.string("second"),
          .verdict = static_cast<JudgementRecord::Verdict>(found - std::begin(kVerdicts)),
          .reason = o.string("reason")};
}

MeasureRecord measure_record(const Json& json, const std::string& where) {
  const JsonObject o(json, where);
  MeasureRecord r{
      .example = o.string("example"), .condition = o.string("condition"), .name = o.string("name")};
  if (!o.has("measures")) return r;
  const JsonObject measures = o.object("measures");
  for (const auto& [name, value] : measures.json().items())
    r.measures[name] = measures.number(name);
  return r;
}

ContextRecord context_record(const Json& json, const std::string& where) {
  const JsonObject o(json, where);
  return {.example = o.string("example"),
          .condition = o.string("condition"),
          .name = o.string("name"),
          .tokens = o.integer("tokens"),
          .prefilled = o.integer("prefilled"),
          .restored = o.integer("restored", 0),  // older runs did not count them
          .bytes = o.integer("bytes"),
          .begin = o.number("begin"),
          .end = o.number("end")};
}

OutputRecord output_record(const Json& json, const std::string& where) {
  const JsonObject o(json, where);
  OutputRecord r{.example = o.string("example"),
                 .condition = o.string("condition"),
                 .name = o.string("name"),
                 .cluster = o.string("cluster"),
                 .context = o.string("context"),
                 .prompt_tokens = o.integer("prompt_tokens"),
                 .reused_tokens = o.integer("reused_tokens"),
                 .text = o.string("text"),
                 .finish_reason = o.string("finish_reason"),
                 .begin = o.number("begin"),
                 .end = o.number("end"),
                 .seconds = o.number("seconds")};
  if (!o.raw("seed").is_number_unsigned()) o.fail_field("seed", "expected a number");
  r.seed = o.raw("seed").get<uint64_t>();
  const Json& tokens = o.raw("tokens");
  if (!tokens.is_array()) o.fail_field("tokens", "expected a list of ids");
  if (tokens.empty()) o.fail_field("tokens", "is empty, an output has a token at least");
  for (const Json& id : tokens) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > std::numeric_limits<Token>::max())
      o.fail_field("tokens", "expected a list of ids, found " + shown_json(id));
    r.tokens.push_back(id.get<Token>());
  }
  return r;
}

}  // namespace lapidary
