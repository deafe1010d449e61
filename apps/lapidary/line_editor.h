// Lines typed at a terminal, with editing and history.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace lapidary::cli {

// The prompt and what is typed appear on stderr. One at a time.
class LineEditor {
 public:
  // Reads the history from `file` and adds each line to it; an empty path: no history.
  explicit LineEditor(const std::filesystem::path& file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Result { kLine, kCancelled, kEnd };  // kCancelled: Ctrl-C; kEnd: Ctrl-D
  Result read(const std::string& prompt, std::string& line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// $XDG_STATE_HOME/lapidary/history, its folder made; empty when that cannot be.
std::filesystem::path history_file();

}  // namespace lapidary::cli
