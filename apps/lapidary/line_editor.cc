#include "line_editor.h"

#include <cstdio>
#include <cstdlib>
#include <histedit.h>
#include <system_error>

namespace lapidary::cli {

struct LineEditor::State {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::filesystem::path file;
  std::string prompt;
  bool cancelled = false;
};

LineEditor::LineEditor(const std::filesystem::path& file) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.file = file;
  s.editor = el_init("lapidary", stdin, stderr, stderr);
  s.history = history_init();
  HistEvent event;
  history(s.history, &event, H_SETSIZE, 1000);
  history(s.history, &event, H_SETUNIQUE, 1);
  if (!file.empty()) history(s.history, &event, H_LOAD, file.c_str());

  el_set(s.editor, EL_CLIENTDATA, &s);
  el_set(s.editor, EL_HIST, history, s.history);
  el_set(s.editor, EL_EDITOR, "emacs");
  el_set(
      s.editor, EL_PROMPT, +[](EditLine* editor) {
        State* state = nullptr;
        el_get(editor, EL_CLIENTDATA, &state);
        return state->prompt.data();
      });
  // Ctrl-C comes as a key while a line is edited: it drops the line instead of the program.
  el_set(s.editor, EL_SETTY, "-d", "-isig", nullptr);
  el_set(
      s.editor, EL_ADDFN, "lapidary-cancel", "Drop the line", +[](EditLine* editor, int) {
        State* state = nullptr;
        el_get(editor, EL_CLIENTDATA, &state);
        state->cancelled = true;
        return static_cast<unsigned char>(CC_EOF);
      });
  el_set(s.editor, EL_BIND, "^C", "lapidary-cancel", nullptr);
  el_set(s.editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
}

LineEditor::~LineEditor() {
  HistEvent event;
  if (!state_->file.empty()) history(state_->history, &event, H_SAVE, state_->file.c_str());
  el_end(state_->editor);
  history_end(state_->history);
}

LineEditor::Result LineEditor::read(const std::string& prompt, std::string& line) {
  State& s = *state_;
  s.prompt = prompt;
  s.cancelled = false;
  line.clear();
  int count = 0;
  const char* text = el_gets(s.editor, &count);
  if (s.cancelled || !text || count <= 0) {
    std::fputc('\n', stderr);
    return s.cancelled ? Result::kCancelled : Result::kEnd;
  }
  line.assign(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (line.find_first_not_of(" \t") != std::string::npos) {
    HistEvent event;
    history(s.history, &event, H_ENTER, line.c_str());
    if (!s.file.empty()) history(s.history, &event, H_SAVE, s.file.c_str());
  }
  return Result::kLine;
}

std::filesystem::path history_file() {
  const char* state_home = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (state_home && *state_home)
    folder = state_home;
  else if (home && *home)
    folder = std::filesystem::path(home) / ".local/state";
  else
    return {};
  folder /= "lapidary";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? std::filesystem::path() : folder / "history";
}

}  // namespace lapidary::cli
