#include "isolate/run_folder.h"

#include <algorithm>
#include <functional>
#include <set>

#include "base/fail.h"
#include "base/json.h"
#include "io/output_file.h"
#include "isolate/plan_json.h"

namespace lapidary {

namespace {

namespace fs = std::filesystem;

// Each whole line. A process that was killed may have left half of one at the end.
void read_lines(const fs::path& file, const std::function<void(const Json&, std::string)>& take) {
  std::ifstream in(file);
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const std::string where = fmt::format("{}: line {}", file.string(), number);
    Json json;
    try {
      json = parse_json(line, where);
    } catch (const Error&) {
      if (in.peek() == std::ifstream::traits_type::eof()) return;
      throw;
    }
    take(json, where);
  }
}

// `records`: a map.
template <class Records>
std::ofstream rewritten(const fs::path& file, const Records& records) {
  std::string text;
  for (const auto& [key, record] : records) text += to_json(record).dump() + "\n";
  write_file(file, text);
  return std::ofstream(file, std::ios::app);
}

// Returns what whoever reads the line will find: bytes of a text that are not UTF-8 are replaced.
Json put(std::ofstream& lines, const fs::path& file, const OrderedJson& json) {
  const std::string line = json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  lines << line << std::endl;
  if (!lines) fail_resource("{}: cannot be written", file.string());
  return parse_json(line, file.string());
}

void compare(const OrderedJson& before, const OrderedJson& now, const fs::path& file) {
  std::string differences;
  for (const auto& [key, value] : now.items()) {
    const Json was = before.contains(key) ? Json(before[key]) : Json();
    if (was != Json(value))
      differences += fmt::format("{} {}: {} then, {} now", differences.empty() ? "" : ";", key,
                                 shown_json(was), shown_json(Json(value)));
  }
  if (differences.empty()) return;
  throw Error(
      ErrorKind::kInput,
      fmt::format("{}: the run that is there was begun otherwise:{}", file.string(), differences),
      "go on with what it was begun with, or choose another folder");
}

}  // namespace

IsolationFolder::IsolationFolder(fs::path folder, const OrderedJson& description)
    : path_(std::move(folder)), description_(description) {
  const fs::path file = path_ / "run.json";
  std::error_code error;
  if (fs::exists(file)) {
    lock_ = FolderLock(path_);
    compare(read_ordered_json_file(file), description, file);
    read_records();
  } else {
    if (fs::exists(path_, error) && !holds_only_temporaries(path_))
      fail("{}: is there and is no run to go on with", path_.string());
    fs::create_directories(path_, error);
    if (error) fail_resource("{}: cannot be made: {}", path_.string(), error.message());
    lock_ = FolderLock(path_);
    write_file(file, description.dump(1) + "\n");
  }
  remove_temporaries(path_);
  output_lines_ = rewritten(path_ / "outputs.jsonl", outputs_);
  context_lines_ = rewritten(path_ / "contexts.jsonl", contexts_);
  measure_lines_ = rewritten(path_ / "measures.jsonl", measures_);
}

IsolationFolder::IsolationFolder(fs::path folder) : path_(std::move(folder)) {
  const fs::path file = path_ / "run.json";
  if (!fs::exists(file)) fail("{}: there is no run", path_.string());
  description_ = read_ordered_json_file(file);
  read_records();
}

fs::path IsolationFolder::context_files() const {
  const fs::path files = path_ / "contexts";
  return fs::is_directory(files) ? files : fs::path();
}

void IsolationFolder::keep_context_files() const {
  std::error_code error;
  fs::create_directories(path_ / "contexts", error);
  if (error) fail_resource("{}/contexts: cannot be made: {}", path_.string(), error.message());
}

void IsolationFolder::keep(std::span<const IsolationExample> examples,
                           std::span<const IsolationPlan> plans) const {
  std::error_code error;
  fs::create_directories(path_ / "examples", error);
  if (error)
    fail_resource("{}: cannot be made: {}", (path_ / "examples").string(), error.message());
  for (const IsolationExample& example : examples)
    write_file(path_ / "examples" / (example.id + ".json"), example.json);
  std::string lines;
  for (const IsolationPlan& plan : plans) lines += stored_plan(plan).dump() + "\n";
  write_file(path_ / "plans.jsonl", lines);
}

KeptRun IsolationFolder::kept() const {
  const fs::path file = path_ / "plans.jsonl";
  KeptRun run;
  std::set<std::string> planned;
  read_lines(file, [&](const Json& json, const std::string& where) {
    const std::string id = planned_example(json, where);
    if (!planned.insert(id).second) fail("{}: '{}' has a plan before", where, id);
    run.examples.push_back(read_example(path_ / "examples" / (id + ".json")));
    run.plans.push_back(restored_plan(json, where, run.examples.back()));
  });
  const Json description = description_;
  const JsonObject begun(description, (path_ / "run.json").string());
  for (const auto& [id, hash] : begun.object("examples").json().items())
    if (!planned.contains(id)) fail("{}: has no plan of '{}'", file.string(), id);
  if (planned.empty()) fail("{}: has no plan", file.string());
  return run;
}

void IsolationFolder::read_records() {
  read_lines(path_ / "outputs.jsonl", [&](const Json& json, const std::string& where) {
    OutputRecord record = output_record(json, where);
    outputs_.insert_or_assign(record.key(), std::move(record));
  });
  read_lines(path_ / "contexts.jsonl", [&](const Json& json, const std::string& where) {
    ContextRecord record = context_record(json, where);
    contexts_.insert_or_assign(record.key(), std::move(record));
  });
  read_lines(path_ / "measures.jsonl", [&](const Json& json, const std::string& where) {
    MeasureRecord record = measure_record(json, where);
    measures_.insert_or_assign(record.key(), std::move(record));
  });
  read_lines(path_ / "judgements.jsonl", [&](const Json& json, const std::string& where) {
    JudgementRecord record = judgement_record(json, where);
    for (const std::string& name : {record.first, record.second})
      if (std::ranges::find(kConditions, name, name_of) == kConditions.end())
        fail("{}: '{}' is no condition", where, name);
    judgements_.insert_or_assign(record.key(), std::move(record));
  });
}

const OutputRecord* IsolationFolder::find(const RecordKey& key) const {
  const auto found = outputs_.find(key);
  return found == outputs_.end() ? nullptr : &found->second;
}

OrderedJson to_json(const ConditionCost& cost) {
  return {{"outputs", cost.outputs}, {"cached", cost.cached},   {"prefilled", cost.prefilled},
          {"reused", cost.reused},   {"decoded", cost.decoded}, {"bytes", cost.bytes},
          {"seconds", cost.seconds}};
}

std::map<std::string, ConditionCost> IsolationFolder::costs() const {
  std::map<std::string, ConditionCost> costs;
  for (const auto& [key, context] : contexts_) {
    ConditionCost& cost = costs[context.condition];
    cost.cached += context.tokens;
    cost.prefilled += context.prefilled;
    cost.reused += context.restored;
    cost.bytes += context.bytes;
    cost.seconds += context.end - context.begin;
  }
  for (const auto& [key, output] : outputs_) {
    ConditionCost& cost = costs[output.condition];
    ++cost.outputs;
    cost.prefilled += output.prompt_tokens;
    cost.reused += output.reused_tokens;
    cost.decoded += std::ssize(output.tokens);
    cost.seconds += output.seconds;
  }
  return costs;
}

double IsolationFolder::seconds() const {
  double last = 0;
  for (const auto& [key, record] : outputs_) last = std::max(last, record.end);
  for (const auto& [key, record] : contexts_) last = std::max(last, record.end);
  return last;
}

void IsolationFolder::check_ids(int vocabulary) const {
  for (const auto& [key, record] : outputs_)
    for (const Token id : record.tokens)
      if (id >= vocabulary)
        fail("{}: {}: {}, output {}: token id {} is not in the model's vocabulary of {}",
             (path_ / "outputs.jsonl").string(), record.example, record.condition, record.name, id,
             vocabulary);
}

// A run that goes on must hear the same text as one that was never stopped.
void IsolationFolder::add(const OutputRecord& record) {
  const fs::path file = path_ / "outputs.jsonl";
  const Json written = put(output_lines_, file, to_json(record));
  outputs_.insert_or_assign(record.key(), output_record(written, file.string()));
}

void IsolationFolder::add(MeasureRecord record) {
  put(measure_lines_, path_ / "measures.jsonl", to_json(record));
  measures_.insert_or_assign(record.key(), std::move(record));
}

void IsolationFolder::add(JudgementRecord record) {
  const fs::path file = path_ / "judgements.jsonl";
  if (!judgement_lines_.is_open()) judgement_lines_ = rewritten(file, judgements_);
  put(judgement_lines_, file, to_json(record));
  judgements_.insert_or_assign(record.key(), std::move(record));
}

void IsolationFolder::add(ContextRecord record) {
  put(context_lines_, path_ / "contexts.jsonl", to_json(record));
  contexts_.insert_or_assign(record.key(), std::move(record));
}

}  // namespace lapidary
