#include "experiment_runner.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/clock.h"
#include "base/fail.h"
#include "base/json.h"
#include "common.h"
#include "eval/assets.h"
#include "io/output_file.h"

namespace lapidary::cli {

namespace fs = std::filesystem;

namespace {

constexpr size_t kExcerpt = 2400;  // bytes, some 500 tokens

fs::path program() {
  std::error_code error;
  fs::path path = fs::read_symlink("/proc/self/exe", error);
  if (error) fail_resource("/proc/self/exe: {}", error.message());
  return path;
}

// The examples of isolation: of a build folder, or of an installation.
fs::path conversations() {
  const fs::path bin = program().parent_path();
  std::error_code error;
  for (const char* place : {"../../data/isolation", "../share/lapidary/data/isolation"})
    if (fs::exists(bin / place, error)) return fs::weakly_canonical(bin / place);
  return {};
}

// Beside those that are there: "layers", "layers-2", ...
fs::path new_folder(const fs::path& parent, std::string_view name) {
  std::error_code error;
  fs::path folder = parent / name;
  for (int i = 2; fs::exists(folder, error); ++i) folder = parent / fmt::format("{}-{}", name, i);
  return folder;
}

// The child's exit code, with its stdout appended to `output`.
int run_child(const std::vector<std::string>& words, const fs::path& output) {
  const std::string self = program().string();
  std::vector<char*> arguments = {const_cast<char*>("lapidary")};
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(),
                                   O_WRONLY | O_CREAT | O_APPEND, 0644);
  pid_t child = 0;
  const int error = posix_spawn(&child, self.c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) fail_resource("{}: cannot run it: {}", self, std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)  // Ctrl-C goes to the child too, which ends
    if (errno != EINTR) fail_resource("waiting for {}: {}", words.front(), std::strerror(errno));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

Json to_json(const ExperimentRun& run) {
  return {{"name", run.name},
          {"model", run.model},
          {"exit", run.exit_code},
          {"seconds", run.seconds},
          {"folder", run.folder.string()},
          {"printed", run.printed.string()},
          {"report", run.report.empty() ? Json() : Json(run.report.string())}};
}

ExperimentRunner::ExperimentRunner(fs::path folder, std::string model, std::string text)
    : folder_(std::move(folder)), model_(std::move(model)), text_(std::move(text)) {
  const fs::path file = folder_ / "runs.json";
  std::error_code error;
  if (!fs::exists(file, error)) return;
  const lapidary::Json json = read_json_file(file);
  if (!json.is_array()) fail("{}: expected an array of runs", file.string());
  for (const auto& entry : json) {
    const JsonObject o(entry, file.string());
    const ExperimentRun run{.name = o.string("name"),
                            .model = o.string("model"),
                            .exit_code = static_cast<int>(o.integer("exit")),
                            .seconds = o.number("seconds"),
                            .folder = o.string("folder"),
                            .report = o.string("report", ""),
                            .printed = o.string("printed", "")};
    runs_[{run.name, run.model}] = run;
  }
}

ExperimentWords ExperimentRunner::words(const Experiment& experiment) const {
  return {.model = model_,
          .text = text_.empty() ? (folder_ / "text.txt").string() : text_,
          .excerpt = (folder_ / "excerpt.txt").string(),
          .conversations = conversations().string(),
          .out = new_folder(folder_, experiment.name).string()};
}

std::vector<std::vector<std::string>> ExperimentRunner::commands(
    const Experiment& experiment) const {
  return commands_of(experiment, words(experiment));
}

// The texts that experiments read.
void ExperimentRunner::prepare() {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error)
    throw Error(ErrorKind::kResource, fmt::format("{}: {}", folder_.string(), error.message()));
  const std::string text = text_.empty() ? std::string(assets::kText) : read_file(text_);
  if (text_.empty()) write_file(folder_ / "text.txt", text);
  size_t end = std::min(kExcerpt, text.size());
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)
    --end;  // not within a character
  write_file(folder_ / "excerpt.txt", std::string_view(text).substr(0, end));
}

ExperimentRun ExperimentRunner::run(const Experiment& experiment) {
  prepare();
  const ExperimentWords w = words(experiment);
  if (w.conversations.empty() &&
      experiment.commands.find("$CONVERSATIONS") != std::string_view::npos)
    fail("{}: the examples, data/isolation, are not where they were installed", experiment.name);
  ExperimentRun run{.name = std::string(experiment.name),
                    .model = model_,
                    .folder = w.out,
                    .printed = w.out + ".txt"};
  write_file(run.printed, "");
  // The folder is the command's to make, but for one that writes single files there.
  if (experiment.commands.find("$OUT/") != std::string_view::npos) fs::create_directories(w.out);
  const Stopwatch clock;
  for (const std::vector<std::string>& command : commands_of(experiment, w)) {
    note(dim(fmt::format("$ lapidary {}", fmt::join(command, " "))));
    run.exit_code = run_child(command, run.printed);
    if (run.exit_code != 0) break;
  }
  run.seconds = clock.seconds();
  std::error_code error;
  const fs::path page = run.folder / experiment.report;
  if (!experiment.report.empty() && fs::exists(page, error)) run.report = page;
  remember(run);
  return run;
}

const ExperimentRun* ExperimentRunner::last(std::string_view name) const {
  const auto found = runs_.find({std::string(name), model_});
  return found == runs_.end() ? nullptr : &found->second;
}

void ExperimentRunner::remember(const ExperimentRun& run) {
  runs_[{run.name, run.model}] = run;
  Json list = Json::array();
  for (const auto& [key, known] : runs_) list.push_back(to_json(known));
  write_file(folder_ / "runs.json", list.dump(1) + "\n");
}

}  // namespace lapidary::cli
