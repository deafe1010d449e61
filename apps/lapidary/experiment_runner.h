// Runs experiments as child processes of this program, each in a folder of its own.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common.h"
#include "experiment_list.h"

namespace lapidary::cli {

// How an experiment went.
struct ExperimentRun {
  std::string name;
  std::string model;
  int exit_code = 0;
  double seconds = 0;
  std::filesystem::path folder;
  std::filesystem::path report = {};   // the page; empty if there is none
  std::filesystem::path printed = {};  // what the commands printed
};
Json to_json(const ExperimentRun& run);  // as it is kept, and printed

class ExperimentRunner {
 public:
  // `model` as -m takes it, `text` a file or "" for the built-in text. Nothing is made before the
  // first run.
  ExperimentRunner(std::filesystem::path folder, std::string model, std::string text);

  const std::string& model() const { return model_; }
  void set_model(std::string model) { model_ = std::move(model); }

  // The commands that run() would give, in a folder that is not there yet.
  std::vector<std::vector<std::string>> commands(const Experiment& experiment) const;
  // Runs them one after another to the first that fails. Their stderr goes where ours does, what
  // they print to a file. Throws Error{kInput} when the examples are not to be found,
  // Error{kResource} when a child cannot be made.
  ExperimentRun run(const Experiment& experiment);
  // The last time that it was run with this model, here or before; nullptr for never.
  const ExperimentRun* last(std::string_view name) const;

 private:
  ExperimentWords words(const Experiment& experiment) const;
  void prepare();
  void remember(const ExperimentRun& run);

  std::filesystem::path folder_;
  std::string model_, text_;
  std::map<std::pair<std::string, std::string>, ExperimentRun> runs_;  // by name and model
};

}  // namespace lapidary::cli
