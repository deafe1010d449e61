// A folder that a run writes to as it goes: run.json, examples and plans.jsonl say what is run,
// contexts.jsonl and outputs.jsonl what came of it so far (contexts/ the former themselves, where
// they are kept), measures.jsonl what the model says of
// the outputs, and judgements.jsonl what other models do.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/folder_lock.h"
#include "isolate/plan.h"
#include "isolate/record.h"

namespace lapidary {

// Of an output or a context of that name.
inline RecordKey record_key(const std::string& example, Condition condition,
                            const std::string& name) {
  return {example, std::string(name_of(condition)), name};
}

// What is run.
struct KeptRun {
  std::vector<IsolationExample> examples = {};
  std::vector<IsolationPlan> plans = {};  // one for each
};

// What a condition took, of all examples together.
struct ConditionCost {
  int64_t outputs = 0;
  int64_t cached = 0;     // tokens of its contexts
  int64_t prefilled = 0;  // tokens of contexts and prompts, as often as they were read
  int64_t reused = 0;     // tokens of contexts that outputs found in a cache, or in a file
  int64_t decoded = 0;
  int64_t bytes = 0;  // of keys and values
  double seconds = 0;
};
nlohmann::ordered_json to_json(const ConditionCost& cost);

class IsolationFolder {
 public:
  // Begins a run, or takes up the one that is there. `description` goes to run.json; throws
  // Error{kInput} when the one that is there was begun with another, naming what differs, or when
  // another process is at it, and Error{kResource} when the folder cannot be written.
  IsolationFolder(std::filesystem::path folder, const nlohmann::ordered_json& description);
  // Only reads, but for judgements. Throws Error{kInput} where there is no run.
  explicit IsolationFolder(std::filesystem::path folder);

  // For those who read the folder later.
  void keep(std::span<const IsolationExample> examples, std::span<const IsolationPlan> plans) const;
  // The same, in the order of the plans. Throws Error{kInput} where they do not belong together.
  KeptRun kept() const;

  // Where snapshots of contexts lie, Session::snapshot; empty until they are kept.
  std::filesystem::path context_files() const;
  void keep_context_files() const;

  const std::filesystem::path& path() const { return path_; }
  const nlohmann::ordered_json& description() const { return description_; }
  const OutputRecord* find(const RecordKey& key) const;  // null: not made yet
  const std::map<RecordKey, OutputRecord>& outputs() const { return outputs_; }
  const std::map<RecordKey, ContextRecord>& contexts() const { return contexts_; }
  const std::map<RecordKey, MeasureRecord>& measures() const { return measures_; }
  const std::map<JudgementRecord::Key, JudgementRecord>& judgements() const { return judgements_; }
  std::map<std::string, ConditionCost> costs() const;  // by condition
  // When the last thing in it ended.
  double seconds() const;
  // Throws Error{kInput} naming an output that has an id which a model of so many tokens lacks:
  // somebody edited it.
  void check_ids(int vocabulary) const;

  // On disk when they return.
  void add(const OutputRecord& record);
  void add(ContextRecord record);
  void add(MeasureRecord record);
  void add(JudgementRecord record);

 private:
  void read_records();

  std::filesystem::path path_;
  FolderLock lock_;  // of who runs; readers and judges do without
  nlohmann::ordered_json description_;
  std::map<RecordKey, OutputRecord> outputs_;
  std::map<RecordKey, ContextRecord> contexts_;
  std::map<RecordKey, MeasureRecord> measures_;
  std::map<JudgementRecord::Key, JudgementRecord> judgements_;
  std::ofstream output_lines_, context_lines_, measure_lines_;
  std::ofstream judgement_lines_;  // open once there is a new one
};

}  // namespace lapidary
