// The folder of a run: what it was asked, how it went, and where it stands.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/train.h"

#include "base/json.h"
#include "io/folder_lock.h"
#include "train/batches.h"
#include "train/event_file.h"
#include "train/optimizer.h"

namespace lapidary {

// Where a run stands after `step` steps.
struct RunPosition {
  int64_t step = 0;
  DataPosition data = {};
  int64_t tokens = 0;
  double seconds = 0;  // of training
  uint64_t data_fingerprint = 0;
};

class RunFolder {
 public:
  // Makes the folder and writes config.json, or with options.resume compares it: the data by its
  // fingerprint, wherever it lies now. Throws Error{kInput} when a run is there already and is not
  // to be resumed, when there is none to resume, and when the options differ in what changes
  // results, naming both values of each.
  RunFolder(const TrainOptions& options, uint64_t data_fingerprint, const DataReport& data);

  // The micro-batch that the run in this folder was begun with. Throws Error{kInput} when there is
  // none.
  static int64_t micro_batch(const std::filesystem::path& run);
  // Whether it was begun with operands of bf16. Throws the same.
  static bool bf16(const std::filesystem::path& run);

  const std::filesystem::path& path() const { return path_; }

  // Keeps other processes from writing to it, for as long as it lives. Throws Error{kInput} when
  // one does.
  void lock() { lock_ = FolderLock(path_); }

  // Removes what a run that was killed while it saved left behind: half a file, or a state that is
  // not the one to go on from.
  void clear_leftovers() const;

  // The last state saved; nothing at the start of a run.
  std::optional<RunPosition> position() const;
  // Fills the arrays with those of that state. Throws as read_state.
  void restore(std::vector<StateArray> arrays) const;
  // Replaces the state: the one before stays until this one is complete.
  void save(const RunPosition& position, std::vector<StateArray> arrays);

  // Opens metrics.jsonl and, where ranks are asked for, ranks.jsonl, without lines after `step`,
  // and an event file.
  void begin_metrics(int64_t step);
  void log(const TrainStep& step);
  // The last step that was logged, as far as results tell of it; nothing in a new run.
  std::optional<TrainStep> last_step() const;
  void log_ranks(std::span<const OrderedJson> lines);
  void write_report() const;  // report.html

 private:
  std::filesystem::path state_file(int64_t step) const;

  std::filesystem::path path_;
  FolderLock lock_;
  bool ranked_;
  std::ofstream metrics_, ranks_;
  std::optional<EventFile> events_;
};

// With operands of bf16 where `compute` is kFast.
OrderedJson to_json(const TrainOptions& options);
OrderedJson to_json(const DataReport& data);

}  // namespace lapidary
