#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/json.h"
#include "isolate/report.h"

namespace lapidary {

IsolationResult read_result(const std::filesystem::path& path) {
  IsolationResult result{.folder = IsolationFolder(path)};
  KeptRun kept = result.folder.kept();
  result.examples = std::move(kept.examples);
  result.plans = std::move(kept.plans);
  const Json description = result.folder.description();
  const JsonObject json(description, (path / "run.json").string());
  result.options.seed = static_cast<uint64_t>(json.integer("seed"));
  result.options.text_fields.clear();
  for (const Json& field : json.raw("text_fields"))
    if (field.is_string()) result.options.text_fields.push_back(field.get<std::string>());
  result.outputs = measure_outputs(result.examples, result.plans, result.options, result.folder);
  result.figures =
      condition_figures(result.examples, result.plans, result.outputs, result.options.seed);
  result.differences = condition_differences(result.figures, result.options.seed);
  result.judged = judged_pairs(result.examples, result.plans, result.folder);
  for (const IsolationPlan& plan : result.plans)
    for (const PlannedCondition& condition : plan.conditions)
      for (const PlannedOutput& output : condition.outputs) {
        const RecordKey key = record_key(plan.example, condition.condition, output.name);
        ++result.planned;
        const OutputRecord* made = result.folder.find(key);
        if (made == nullptr) continue;
        result.measured += result.folder.measures().contains(key) ? 1 : 0;
        if (made->text.find_first_not_of(" \t\r\n") == std::string::npos)
          result.empty.push_back(key);
      }
  return result;
}

std::vector<std::string> remarks(const IsolationResult& result) {
  constexpr size_t kNamed = 8;  // of the outputs without text
  std::vector<std::string> list;
  const std::string run = result.folder.path().string();
  if (std::ssize(result.outputs) < result.planned)
    list.push_back(fmt::format("{}: unfinished: {} of {} outputs", run, result.outputs.size(),
                               result.planned));
  else if (result.measured < result.planned)
    list.push_back(fmt::format("{}: unfinished: the model has measured {} of {} outputs", run,
                               result.measured, result.planned));
  for (size_t i = 0; i < std::min(result.empty.size(), kNamed); ++i) {
    const auto& [example, condition, name] = result.empty[i];
    list.push_back(fmt::format("{}: {}, output {} has no text; who hears it hears nothing", example,
                               condition, name));
  }
  if (result.empty.size() > kNamed)
    list.push_back(fmt::format("{} outputs more have no text", result.empty.size() - kNamed));
  return list;
}

OrderedJson to_json(const IsolationResult& result) {
  OrderedJson json = OrderedJson::object();
  json["outputs"] = OrderedJson::array();
  for (const MeasuredOutput& made : result.outputs) {
    const PlannedCondition& condition = result.plans[made.example].conditions[made.condition];
    const RecordKey key = record_key(result.plans[made.example].example, condition.condition,
                                     condition.outputs[made.output].name);
    OrderedJson output = to_json(*result.folder.find(key));
    output["measures"] = made.measures;
    json["outputs"].push_back(std::move(output));
  }
  json["outputs_planned"] = result.planned;
  json["finished"] =
      std::ssize(result.outputs) == result.planned && result.measured == result.planned;
  json["empty_outputs"] = OrderedJson::array();
  for (const auto& [example, condition, name] : result.empty)
    json["empty_outputs"].push_back(
        {{"example", example}, {"condition", condition}, {"name", name}});
  json["contexts"] = OrderedJson::array();
  for (const auto& [key, record] : result.folder.contexts())
    json["contexts"].push_back(to_json(record));
  json["costs"] = OrderedJson::object();
  for (const auto& [condition, cost] : result.folder.costs())
    json["costs"][condition] = to_json(cost);
  json["seconds"] = result.folder.seconds();
  json["metrics"] = OrderedJson::array();
  for (const ConditionFigure& figure : result.figures) json["metrics"].push_back(to_json(figure));
  json["statistics"] = OrderedJson::array();
  for (const ConditionDifference& d : result.differences) json["statistics"].push_back(to_json(d));
  for (const JudgedPair& pair : result.judged)
    json["judged"].push_back(to_json(pair, result.examples));
  return json;
}

}  // namespace lapidary
