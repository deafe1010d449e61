#include "experiment_menu.h"

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <set>
#include <spawn.h>
#include <termios.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/fail.h"
#include "command_line.h"

#define NCURSES_NOMACROS
#include <ncurses.h>

namespace lapidary::cli {

namespace {

constexpr int kCtrlC = 3, kEscape = 27;
constexpr int kDetails = 8;  // lines below the list

// A screen of ncurses for as long as it lives. Keys come one by one, Ctrl-C as one of them.
class Screen {
 public:
  Screen() : screen_(newterm(nullptr, stdout, stdin)) {
    if (screen_ == nullptr) return;
    raw();
    noecho();
    keypad(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
  }
  ~Screen() {
    if (screen_ == nullptr) return;
    endwin();
    delscreen(screen_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  bool works() const { return screen_ != nullptr; }
  // Leaves the terminal to fn(), as it was before.
  template <class Fn>
  void hand_over(Fn&& fn) {
    def_prog_mode();
    endwin();
    fn();
    reset_prog_mode();
    clearok(stdscr, TRUE);
    refresh();
  }

 private:
  SCREEN* screen_;
};

void wait_for_enter() {
  ::tcflush(STDIN_FILENO, TCIFLUSH);  // not what was typed while something ran
  std::fprintf(stderr, "Enter goes back to the menu. ");
  for (char c = 0; ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n';) {
  }
}

class Menu {
 public:
  Menu(Screen& screen, ExperimentRunner& runner) : screen_(screen), runner_(runner) {}

  int show() {
    const Interruption interruption;  // by SIGTERM: the terminal is to be left as it was
    while (!interruption.requested()) {
      draw();
      const int key = getch();
      if (key == 'q' || key == kEscape || key == kCtrlC) return kOk;
      if (key != ERR) press(key);
    }
    return kInterrupted;
  }

 private:
  int count() const { return static_cast<int>(experiments().size()); }
  const Experiment& current() const { return experiments()[static_cast<size_t>(chosen_)]; }

  void press(int key) {
    said_.clear();
    const int page = std::max(1, LINES - kDetails - 3);
    switch (key) {
      case KEY_UP:
      case 'k':
        return move(-1);
      case KEY_DOWN:
      case 'j':
        return move(1);
      case KEY_PPAGE:
        return move(-page);
      case KEY_NPAGE:
        return move(page);
      case KEY_HOME:
        return move(-count());
      case KEY_END:
        return move(count());
      case ' ':
        if (!marked_.erase(chosen_)) marked_.insert(chosen_);
        return move(1);
      case 'a':
        for (int i = 0; i < count(); ++i) marked_.insert(i);
        return;
      case 'm':
        return ask_for_model();
      case 'o':
        return open_report();
      case '\n':
      case '\r':
      case KEY_ENTER:
        return run();
    }
  }

  void move(int by) { chosen_ = std::clamp(chosen_ + by, 0, count() - 1); }

  void run() {
    std::vector<int> wanted(marked_.begin(), marked_.end());
    if (wanted.empty()) wanted.push_back(chosen_);
    screen_.hand_over([&] {
      const Interruption interruption;
      for (size_t i = 0; i < wanted.size() && !interruption.requested(); ++i) {
        const Experiment& e = experiments()[static_cast<size_t>(wanted[i])];
        note(fmt::format("\n[{} of {}] {}: {}", i + 1, wanted.size(), e.name, e.question));
        try {
          const ExperimentRun run = runner_.run(e);
          out(read_file(run.printed));
          note(fmt::format("{}: {}{}", e.name, outcome_text(run),
                           run.report.empty() ? "" : ", " + run.report.string()));
          if (run.exit_code == kInterrupted) break;
        } catch (const Error& error) {
          note(fmt::format("lapidary: error: {}", error.what()));
        }
      }
      wait_for_enter();
    });
    marked_.clear();
  }

  void ask_for_model() {
    line(LINES - 1, "model: ", A_BOLD);
    char text[512] = {};
    curs_set(1);
    echo();
    mvgetnstr(LINES - 1, 7, text, sizeof text - 1);
    noecho();
    curs_set(0);
    if (*text == '\0') return;
    std::error_code error;
    try {
      const std::filesystem::path path = model_path(text);
      if (!std::filesystem::exists(path, error)) fail("{}: there is no such model", text);
      runner_.set_model(std::filesystem::absolute(path).string());
    } catch (const Error& e) {
      said_ = e.what();
    }
  }

  // By the desktop, where there is one.
  void open_report() {
    const ExperimentRun* run = runner_.last(current().name);
    if (run == nullptr || run->report.empty()) {
      said_ = "no page yet: Enter runs the experiment";
      return;
    }
    said_ = run->report.string();
    if (std::getenv("DISPLAY") == nullptr && std::getenv("WAYLAND_DISPLAY") == nullptr) return;
    std::string file = run->report.string(), opener = "xdg-open";
    char* words[] = {opener.data(), file.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
      posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_RDWR, 0);
    pid_t child = 0;
    if (posix_spawnp(&child, "xdg-open", &actions, nullptr, words, environ) != 0)
      said_ = "xdg-open is not there; the page is " + file;
    posix_spawn_file_actions_destroy(&actions);
  }

  // `text` on a line of the screen, cut to its width.
  void line(int y, const std::string& text, attr_t attributes = A_NORMAL) const {
    if (y < 0 || y >= LINES) return;
    attr_set(attributes, 0, nullptr);
    mvaddnstr(y, 0, fmt::format("{:<{}}", text, COLS).c_str(), std::max(0, COLS));
    attr_set(A_NORMAL, 0, nullptr);
  }

  void draw() {
    erase();
    line(0, fmt::format(" lapidary experiments   model: {}", runner_.model()), A_REVERSE);
    draw_list(LINES - kDetails - 1);
    draw_details(LINES - kDetails);
    refresh();
  }

  // Rows 1 to `rows` of the screen; groups have a line of their own.
  void draw_list(int rows) {
    struct Row {
      int experiment;  // -1: a group
      std::string text;
    };
    std::vector<Row> list;
    int at = 0;
    for (int i = 0; i < count(); ++i) {
      const Experiment& e = experiments()[static_cast<size_t>(i)];
      if (i == 0 || experiments()[static_cast<size_t>(i - 1)].group != e.group)
        list.push_back({-1, std::string(e.group)});
      if (i == chosen_) at = static_cast<int>(list.size());
      const ExperimentRun* run = runner_.last(e.name);
      list.push_back({i, fmt::format(" {} {:<20} {}", marked_.contains(i) ? '*' : ' ', e.name,
                                     run != nullptr ? outcome_text(*run) : std::string(e.time))});
    }
    // The chosen row stays in sight, with its group's line where it is the group's first.
    const bool first_of_group = list[static_cast<size_t>(at - 1)].experiment < 0;
    first_ = std::clamp(first_, std::max(0, at - rows + 1), first_of_group ? at - 1 : at);
    for (int y = 0; y < rows && first_ + y < static_cast<int>(list.size()); ++y) {
      const Row& row = list[static_cast<size_t>(first_ + y)];
      line(1 + y, row.text,
           row.experiment < 0          ? A_BOLD
           : row.experiment == chosen_ ? A_REVERSE
                                       : A_NORMAL);
    }
  }

  void draw_details(int y) const {
    const Experiment& e = current();
    const auto width = static_cast<size_t>(std::max(20, COLS - 1));
    line(y++, std::string(static_cast<size_t>(std::max(0, COLS)), '-'));
    line(y++, std::string(e.question), A_BOLD);
    line(y++, fmt::format("time: {} (the built-in model; 1B in 4 bits)", e.time));
    const auto commands = runner_.commands(e);
    const auto lines = wrap(fmt::format("lapidary {}", fmt::join(commands.front(), " ")), width);
    for (size_t i = 0; i < 3; ++i) line(y++, i < lines.size() ? lines[i] : "", A_DIM);
    line(y++, said_);
    line(y, " Enter run  Space mark  a mark all  m model  o open page  q leave", A_REVERSE);
  }

  Screen& screen_;
  ExperimentRunner& runner_;
  int chosen_ = 0;
  int first_ = 0;         // row of the list at the top
  std::set<int> marked_;  // to be run together
  std::string said_;
};

}  // namespace

std::string outcome_text(const ExperimentRun& run) {
  if (run.exit_code == kInterrupted) return "interrupted";
  if (run.exit_code != kOk) return fmt::format("failed, exit code {}", run.exit_code);
  return fmt::format("done in {:.{}f} s", run.seconds, run.seconds < 10 ? 1 : 0);
}

std::optional<int> show_menu(ExperimentRunner& runner) {
  std::setlocale(LC_CTYPE, "");  // names of files may have any letters
  Screen screen;
  if (!screen.works()) return std::nullopt;
  return Menu(screen, runner).show();
}

}  // namespace lapidary::cli
