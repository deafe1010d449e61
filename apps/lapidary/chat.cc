// lapidary chat: a conversation, one turn or many.
#include "lapidary/chat.h"

#include <fstream>
#include <iostream>
#include <map>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fail.h"
#include "base/json.h"
#include "decoding.h"
#include "line_editor.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

struct Options {
  Verbosity verbosity;
  ModelOptions model;
  SamplingFlags sampling;
  DecodingFlags decoding;
  std::optional<std::string> prompt;
  std::string system;
  int64_t tokens = -1;
  std::vector<std::string> stop;
};

void setup(CLI::App& verb, Options& o) {
  verb.add_option("-p,--prompt", o.prompt,
                  "Answer this one message and leave; -: the whole of standard input")
      ->type_name("TEXT")
      ->group("Input");
  verb.add_option("--system-prompt,--sys", o.system,
                  "Put before the first message, as Gemma 3's template does")
      ->type_name("TEXT")
      ->group("Input");
  verb.add_option("-n,--predict,--max-tokens", o.tokens,
                  "Most tokens of an answer; -1: until its end (-1)")
      ->type_name("N")
      ->group("Output");
  verb.add_option("--stop", o.stop, "End an answer before this text; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group("Output");
  add_sampling(verb, o.sampling);
  add_decoding(verb, o.decoding);
  add_model(verb, o.model);
  add_compute(verb, o.model);
  add_verbosity(verb, o.verbosity);
  verb.footer(
      "At a terminal, /help lists what can be typed. Otherwise each line of standard input is a "
      "message.\n"
      "\n"
      "Examples:\n"
      "  lapidary chat -m ~/models/gemma-3-1b-it\n"
      "  lapidary chat -m ~/models/gemma-3-1b-it -p \"Why is the sky blue?\"\n"
      "  lapidary chat --system-prompt \"Answer in verse.\" --temp 0.7");
}

constexpr const char* kHelp =
    "  /help              this list\n"
    "  /set               show the settings; /set NAME VALUE changes one\n"
    "  /read FILE         send the text of a file as a message\n"
    "  /regen             drop the last answer and draw another\n"
    "  /clear             start afresh\n"
    "  /save FILE         write the conversation as JSON\n"
    "  /load FILE         go on with a conversation from such a file\n"
    "  /bye, /exit        leave (so does Ctrl-D)\n"
    "  \"\"\"                begins and ends a message of several lines\n"
    "  Ctrl-C             stops the answer";

class Chat {
 public:
  Chat(const Options& o, const std::shared_ptr<const Engine>& engine)
      : quiet_(o.verbosity.quiet), system_(o.system), session_(engine, o.model.context) {
    generate_.max_tokens = o.tokens;
    generate_.stop = o.stop;
    generate_.sampling = resolve(o.sampling, *engine);
    generate_.decode = resolve(o.decoding, *engine, o.model, o.verbosity);
  }

  // Sends a message and streams the answer. False when it was interrupted. A message that cannot be
  // answered is taken back.
  bool say(const std::string& text) {
    messages_.push_back({"user", text});
    try {
      return answer();
    } catch (const Error&) {
      messages_.pop_back();
      throw;
    }
  }

  // Does what a line that starts with '/' says. False: leave.
  bool command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, space);
    const size_t start = line.find_first_not_of(' ', space);
    const std::string rest = start == std::string::npos ? "" : line.substr(start);
    if (name == "/bye" || name == "/exit") return false;
    if (name == "/help") {
      note(kHelp);
    } else if (name == "/set") {
      set(rest);
    } else if (name == "/read") {
      say(read_file(file_argument(name, rest)));
    } else if (name == "/regen") {
      regenerate();
    } else if (name == "/clear") {
      messages_.clear();
      remark("cleared");
    } else if (name == "/save") {
      save(file_argument(name, rest));
    } else if (name == "/load") {
      load(file_argument(name, rest));
    } else {
      fail_usage("{}: no such command; /help lists them", name);
    }
    return true;
  }

 private:
  void remark(const std::string& text) const {
    if (!quiet_) note(dim(text));
  }

  static std::string file_argument(const std::string& name, const std::string& rest) {
    if (rest.empty()) fail_usage("{}: a file is missing, as in {} FILE", name, name);
    return rest;
  }

  bool answer() {
    std::vector<ChatMessage> all = messages_;
    if (!system_.empty()) all.insert(all.begin(), {"system", system_});
    const std::vector<Token> prompt = encode_chat(session_.engine().tokenizer(), all);
    const Interruption interruption;
    const Generation made =
        generate(session_, prompt, generate_, out, Watch{{}, interruption.token()});
    out("\n");
    messages_.push_back({"assistant", made.text});
    remark(timings_text(made));
    return made.finish_reason != FinishReason::kInterrupted;
  }

  void regenerate() {
    if (messages_.empty()) fail_usage("/regen: there is no answer yet");
    const std::vector<ChatMessage> before = messages_;
    if (messages_.back().role == "assistant") messages_.pop_back();
    ++generate_.sampling.seed;
    try {
      answer();
    } catch (const Error&) {
      messages_ = before;
      throw;
    }
  }

  void save(const std::string& path) const {
    Json list = Json::array();
    if (!system_.empty()) list.push_back({{"role", "system"}, {"content", system_}});
    for (const ChatMessage& m : messages_)
      list.push_back({{"role", m.role}, {"content", m.content}});
    std::ofstream file(path, std::ios::binary);
    file << Json{{"messages", list}}.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
    file.close();
    if (!file) fail_resource("{}: cannot write", path);
    remark(fmt::format("{} messages saved to {}", list.size(), path));
  }

  void load(const std::string& path) {
    const auto json = read_json_file(path);
    const JsonObject object(json, path);
    const auto& list = object.raw("messages");
    if (!list.is_array()) object.fail_field("messages", "expected a list");
    std::vector<ChatMessage> loaded;
    std::string system;
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonObject message(list[i], fmt::format("{}: messages[{}]", path, i));
      const ChatMessage m{message.string("role"), message.string("content")};
      if (m.role == "system" && i == 0)
        system = m.content;
      else if (m.role == (loaded.size() % 2 == 0 ? "user" : "assistant"))
        loaded.push_back(m);
      else
        message.fail_field("role", fmt::format("'{}' is out of turn", m.role));
    }
    if (loaded.size() % 2 != 0) fail("{}: the last message has no answer", path);
    messages_ = std::move(loaded);
    system_ = system;
    for (const ChatMessage& m : messages_)  // replayed for the reader
      if (!quiet_ && stderr_is_terminal()) note(dim((m.role == "user" ? "> " : "") + m.content));
    remark(fmt::format("{} messages loaded from {}", messages_.size(), path));
  }

  // One setting by name: how it reads, and how it is changed.
  struct Setting {
    std::string value;
    std::function<void(const std::string&)> assign;
  };
  template <class T>
  static Setting setting(T& field) {
    return {fmt::format("{}", field), [&field](const std::string& text) {
              T value{};
              if (!CLI::detail::lexical_cast(text, value))
                fail_usage("/set: '{}' is not a number that fits here", text);
              field = value;
            }};
  }
  std::map<std::string, Setting> settings() {
    SamplerOptions& s = generate_.sampling;
    return {{"temp", setting(s.temperature)},
            {"top-k", setting(s.top_k)},
            {"top-p", setting(s.top_p)},
            {"min-p", setting(s.min_p)},
            {"repeat-penalty", setting(s.repetition_penalty)},
            {"frequency-penalty", setting(s.frequency_penalty)},
            {"presence-penalty", setting(s.presence_penalty)},
            {"repeat-last-n", setting(s.penalty_window)},
            {"seed", setting(s.seed)},
            {"n", setting(generate_.max_tokens)},
            {"system", {system_, [this](const std::string& text) { system_ = text; }}}};
  }

  void set(const std::string& rest) {
    const auto all = settings();
    if (rest.empty()) {
      for (const auto& [name, setting] : all) note(fmt::format("  {:<18} {}", name, setting.value));
      return;
    }
    const size_t space = std::min(rest.find(' '), rest.size());
    const auto found = all.find(rest.substr(0, space));
    if (found == all.end())
      fail_usage("/set: '{}' is not a setting; /set lists them", rest.substr(0, space));
    const GenerateOptions before = generate_;
    found->second.assign(space < rest.size() ? rest.substr(space + 1) : "");
    try {
      check_sampler_options(generate_.sampling, session_.engine().config().vocab_size);
      if (generate_.max_tokens < -1)
        fail_usage("n: {} given, expected -1 or more", generate_.max_tokens);
    } catch (const Error&) {
      generate_ = before;
      throw;
    }
  }

  bool quiet_;
  std::string system_;
  Session session_;
  GenerateOptions generate_;
  std::vector<ChatMessage> messages_;  // users' and assistants' in turn
};

void report(const Error& e) {
  note(fmt::format("lapidary: error: {}", e.what()));
  if (!e.hint().empty()) note("hint: " + e.hint());
}

// One line, or what stands between two """.
using ReadLine = std::function<LineEditor::Result(const char* prompt, std::string& line)>;
LineEditor::Result read_message(const ReadLine& read, std::string& text) {
  const std::string marks = "\"\"\"";
  LineEditor::Result result = read("> ", text);
  if (result != LineEditor::Result::kLine || !text.starts_with(marks)) return result;
  text.erase(0, marks.size());
  while (!text.ends_with(marks)) {
    std::string line;
    result = read(". ", line);
    if (result != LineEditor::Result::kLine) return result;
    text += "\n" + line;
  }
  text.erase(text.size() - marks.size());
  return result;
}

// A conversation with someone at a terminal, who can mend what went wrong.
int talk(Chat& chat) {
  LineEditor editor(history_file());
  const ReadLine read = [&](const char* prompt, std::string& line) {
    return editor.read(prompt, line);
  };
  int cancelled = 0;  // times in a row
  for (std::string text;;) {
    const LineEditor::Result result = read_message(read, text);
    if (result == LineEditor::Result::kEnd) return kOk;
    if (result == LineEditor::Result::kCancelled) {
      if (++cancelled == 2) return kInterrupted;
      note(dim("Ctrl-C again, Ctrl-D or /bye leaves"));
      continue;
    }
    cancelled = 0;
    if (text.find_first_not_of(" \t\n") == std::string::npos) continue;
    try {
      if (!text.starts_with('/'))
        chat.say(text);
      else if (!chat.command(text))
        return kOk;
    } catch (const Error& e) {
      report(e);
    }
  }
}

// Messages from a file or a pipe: the first failure ends it.
int take_lines(Chat& chat) {
  const ReadLine read = [](const char*, std::string& line) {
    return std::getline(std::cin, line) ? LineEditor::Result::kLine : LineEditor::Result::kEnd;
  };
  std::string text;
  while (read_message(read, text) == LineEditor::Result::kLine) {
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) continue;
    if (text.starts_with('/')) {
      if (!chat.command(text)) return kOk;
    } else if (!chat.say(text)) {
      return kInterrupted;
    }
  }
  return kOk;
}

int run(const Options& o) {
  apply(o.verbosity);
  if (o.tokens < -1) fail_usage("-n: {} given, expected -1 (until the end) or more", o.tokens);
  check(o.sampling);
  check(o.decoding);
  const auto engine = load_engine(o.model, o.verbosity);
  engine->tokenizer();  // throws without one
  Chat chat(o, engine);
  if (o.prompt) return chat.say(*o.prompt == "-" ? read_stdin() : *o.prompt) ? kOk : kInterrupted;
  if (!::isatty(STDIN_FILENO)) return take_lines(chat);
  if (!o.verbosity.quiet)
    note(dim(engine->folder().filename().string() + ": /help lists what can be typed"));
  return talk(chat);
}

}  // namespace

void add_chat(Program& program) {
  add_verb<Options>(program, "chat", "Hold a conversation", setup, run);
}

}  // namespace lapidary::cli
