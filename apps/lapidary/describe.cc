#include "describe.h"

#include <fmt/format.h>

#include "command_line.h"

namespace lapidary::cli {

namespace {

constexpr size_t kWidth = 79;
constexpr size_t kColumn = 26;  // where descriptions start

std::string head_of(const OptionDoc& option) {
  return joined(option.names, ", ") + (option.value.empty() ? "" : " " + option.value);
}

std::string text_of(const OptionDoc& option) {
  std::string text = option.text;
  if (!option.initial.empty()) text += " (" + option.initial + ")";
  if (option.required) text += " (needed)";
  if (!option.environment.empty()) text += " [$" + option.environment + "]";
  return text;
}

std::string entry(const std::string& head, const std::string& text) {
  std::string result = "  " + head;
  bool first = true;
  for (const std::string& line : wrap(text, kWidth - kColumn)) {
    const bool fits = first && result.size() + 2 <= kColumn;
    result += fits ? std::string(kColumn - result.size(), ' ') : "\n" + std::string(kColumn, ' ');
    result += line;
    first = false;
  }
  return result + "\n";
}

// Lines that are too long are broken, and go on at their own indentation.
std::string wrapped_lines(const std::string& text) {
  std::string result;
  for (const std::string& line : CLI::detail::split(text, '\n')) {
    const size_t indent = std::min(line.find_first_not_of(' '), line.size());
    for (const std::string& part : wrap(line.substr(indent), kWidth - indent))
      result += (part.empty() ? "" : std::string(indent, ' ') + part) + "\n";
  }
  return result;
}

std::string usage(const VerbDoc& verb) {
  std::string line = "lapidary " + verb.name;
  for (const auto& [title, options] : verb.groups)
    for (const OptionDoc& option : options)
      if (option.required) line += " " + option.names.back() + " " + option.value;
  line += " [options]";
  for (const OptionDoc& option : verb.positionals)
    line += " " + (option.required ? option.value : "[" + option.value + "...]");
  return line;
}

std::string verb_help(const VerbDoc& verb) {
  std::string text = verb.summary + ".\n\nUsage: " + usage(verb) + "\n";
  for (const auto& [name, summary] : verb.second_words) {
    if (name == verb.second_words.front().first) text += "\nSecond words:\n";
    text += entry(name, summary);
  }
  if (!verb.positionals.empty()) text += "\nArguments:\n";
  for (const OptionDoc& option : verb.positionals) text += entry(option.value, option.text);
  for (const auto& [title, options] : verb.groups) {
    text += "\n" + title + ":\n";
    for (const OptionDoc& option : options) text += entry(head_of(option), text_of(option));
  }
  if (!verb.footer.empty()) text += "\n" + wrapped_lines(verb.footer);
  return text;
}

std::string program_help(const CLI::App& app) {
  std::string text = app.get_description() + "\n\nUsage: lapidary VERB [options]\n\nVerbs:\n";
  for (const VerbDoc& verb : describe_verbs(app))
    if (!verb.has_parent()) text += entry(verb.name, verb.summary);
  return text + "\n" + wrapped_lines(app.get_footer());
}

class HelpFormatter : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const override {
    return app->get_parent() ? verb_help(describe_verb(*app)) : program_help(*app);
  }
};

// ---- man page

std::string roff(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
  }
  if (result.starts_with('.') || result.starts_with('\'')) result.insert(0, "\\&");
  return result;
}

// Text with lines of examples (indented) kept as they are.
std::string roff_lines(const std::string& text) {
  std::string result;
  bool literal = false;
  const auto set_literal = [&](bool wanted) {
    if (literal != wanted) result += wanted ? ".RS 4\n.nf\n" : ".fi\n.RE\n";
    literal = wanted;
  };
  for (const std::string& line : CLI::detail::split(text, '\n')) {
    if (line.empty()) {
      set_literal(false);
      result += ".PP\n";
    } else {
      const size_t indent = line.find_first_not_of(' ');
      set_literal(indent > 0 && line.find("lapidary") != std::string::npos);
      result += roff(line.substr(indent)) + "\n";
    }
  }
  set_literal(false);
  return result;
}

std::string man_verb(const VerbDoc& verb) {
  std::string text = fmt::format(".SS {}\n{}.\n.PP\n\\fB{}\\fR\n", verb.name, roff(verb.summary),
                                 roff(usage(verb)));
  const auto add = [&](const OptionDoc& option) {
    text += ".TP\n\\fB" + roff(joined(option.names, ", ")) + "\\fR";
    if (!option.value.empty() && !option.positional) text += " \\fI" + roff(option.value) + "\\fR";
    text += "\n" + roff(text_of(option)) + "\n";
  };
  for (const OptionDoc& option : verb.positionals) add(option);
  for (const auto& [title, options] : verb.groups)
    for (const OptionDoc& option : options) add(option);
  if (!verb.footer.empty()) text += ".PP\n" + roff_lines(verb.footer);
  return text;
}

}  // namespace

std::shared_ptr<CLI::FormatterBase> help_formatter() {
  return std::make_shared<HelpFormatter>();
}

std::string man_page(const CLI::App& app) {
  std::string text = fmt::format(
      ".TH LAPIDARY 1 \"\" \"lapidary {}\" \"User Commands\"\n"
      ".SH NAME\nlapidary \\- {}\n"
      ".SH SYNOPSIS\n\\fBlapidary\\fR \\fIverb\\fR [\\fIoptions\\fR]\n"
      ".SH DESCRIPTION\n"
      "Results go to standard output, everything else to standard error.\n"
      ".SH VERBS\n",
      LAPIDARY_VERSION, "run Gemma models, and look at what they do");
  for (const VerbDoc& verb : describe_verbs(app)) text += man_verb(verb);
  text +=
      ".SH EXIT STATUS\n"
      "0 when done, 1 after a failure, 2 for bad usage, 130 when interrupted.\n"
      ".SH ENVIRONMENT\n"
      ".TP\n\\fBLAPIDARY_MODEL\\fR, \\fBLAPIDARY_THREADS\\fR, \\fBLAPIDARY_COMPUTE\\fR\n"
      "Stand in for \\-m, \\-t and \\-\\-compute.\n"
      ".TP\n\\fBLAPIDARY_MODELS\\fR\nThe folder that holds the built\\-in model, tiny.\n"
      ".TP\n\\fBLAPIDARY_ISA\\fR\nThe kernels to use: ref, or one that \\fBlapidary version\\fR "
      "lists.\n"
      ".TP\n\\fBLAPIDARY_SETTINGS\\fR\nStands in for \\-\\-settings.\n"
      ".TP\n\\fBNO_COLOR\\fR\nIf set, nothing is coloured.\n"
      ".SH FILES\n"
      ".TP\n\\fI$XDG_CONFIG_HOME/lapidary/settings.json\\fR\n"
      "What \\fBlapidary tune\\fR found; in ~/.config without the variable.\n"
      ".TP\n\\fI$XDG_STATE_HOME/lapidary/history\\fR\n"
      "What was typed in \\fBlapidary chat\\fR; in ~/.local/state without the variable.\n";
  return text;
}

}  // namespace lapidary::cli
