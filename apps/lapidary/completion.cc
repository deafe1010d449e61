// lapidary completion: scripts for the shells.
#include <fmt/format.h>

#include "base/fail.h"
#include "command_line.h"
#include "describe.h"
#include "verbs.h"

namespace lapidary::cli {

namespace {

template <class Fn>
void for_each_option(const VerbDoc& verb, Fn&& fn) {
  for (const auto& [title, options] : verb.groups)
    for (const OptionDoc& option : options) fn(option);
}

// A value that may be a file, or a folder: MODEL is either.
bool takes_file(const OptionDoc& option) {
  return option.value == "FILE" || option.value == "MODEL" || option.value.starts_with("PATH");
}

std::string verb_names(const std::vector<VerbDoc>& verbs) {
  std::string names;
  for (const VerbDoc& verb : verbs)
    if (!verb.has_parent()) names += (names.empty() ? "" : " ") + verb.name;
  return names;
}

// What may come after a verb that is not an option.
std::string positional_words(const VerbDoc& verb) {
  std::vector<std::string> words;
  for (const OptionDoc& option : verb.positionals)
    for (const std::string& word : value_choices(option)) words.push_back(word);
  for (const auto& [name, summary] : verb.second_words) words.push_back(name);
  return joined(words, " ");
}

// "\"bench limits\"|\"bench kernels\"", a shell pattern of the verbs of two words.
std::string two_words_pattern(const std::vector<VerbDoc>& verbs) {
  std::vector<std::string> names;
  for (const VerbDoc& verb : verbs)
    if (verb.has_parent()) names.push_back('"' + verb.name + '"');
  return joined(names, "|");
}

std::string bash_script(const std::vector<VerbDoc>& verbs) {
  std::string script =
      "# bash completion of lapidary: source <(lapidary completion bash)\n"
      "_lapidary() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W \"" +
      verb_names(verbs) +
      " --help --version\" -- \"$cur\"))\n"
      "    return\n"
      "  fi\n"
      "  local verb=${COMP_WORDS[1]}\n"
      "  case \"$verb ${COMP_WORDS[2]}\" in\n    " +
      two_words_pattern(verbs) +
      ") [ \"$COMP_CWORD\" -gt 2 ] && verb=\"$verb ${COMP_WORDS[2]}\" ;;\n"
      "  esac\n"
      "  case \"$verb $prev\" in\n";
  for (const VerbDoc& verb : verbs)
    for_each_option(verb, [&](const OptionDoc& option) {
      if (option.value.empty()) return;
      std::string patterns;
      for (const std::string& name : option.names)
        patterns += fmt::format("{}\"{} {}\"", patterns.empty() ? "" : "|", verb.name, name);
      const auto words = value_choices(option);
      const std::string action = !words.empty() ? fmt::format("-W \"{}\"", joined(words, " "))
                                 : option.value == "DIR" ? "-d"
                                 : takes_file(option)    ? "-f"
                                                         : "-W \"\"";
      script += fmt::format("    {})\n      COMPREPLY=($(compgen {} -- \"$cur\")); return ;;\n",
                            patterns, action);
    });
  script += "  esac\n  case \"$verb\" in\n";
  for (const VerbDoc& verb : verbs) {
    std::string words = positional_words(verb);
    for_each_option(verb, [&](const OptionDoc& option) {
      for (const std::string& name : option.names) words += (words.empty() ? "" : " ") + name;
    });
    if (verb.name == "help") words = verb_names(verbs);
    script += fmt::format("    \"{}\") COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n",
                          verb.name, words);
  }
  return script + "  esac\n}\ncomplete -F _lapidary lapidary\n";
}

// `text` inside single quotes; `also` are characters that the shell's own syntax wants escaped.
std::string quoted(const std::string& text, const std::string& also) {
  std::string result;
  for (const char c : text) {
    if (c == '\'')
      result += "'\\''";
    else if (also.find(c) != std::string::npos)
      result += std::string("\\") + c;
    else
      result += c;
  }
  return result;
}

std::string zsh_script(const std::vector<VerbDoc>& verbs) {
  std::string script =
      "#compdef lapidary\n"
      "# zsh completion of lapidary: source <(lapidary completion zsh)\n"
      "_lapidary() {\n"
      "  local -a verbs\n"
      "  verbs=(\n";
  for (const VerbDoc& verb : verbs)
    if (!verb.has_parent())
      script += fmt::format("    '{}:{}'\n", verb.name, quoted(verb.summary, ":"));
  script +=
      "  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe 'verb' verbs\n"
      "    return\n"
      "  fi\n"
      "  local verb=$words[2]\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case \"$verb $words[2]\" in\n    " +
      two_words_pattern(verbs) +
      ")\n"
      "      if (( CURRENT > 2 )); then verb=\"$verb $words[2]\"; shift words; (( CURRENT-- )); fi "
      ";;\n"
      "  esac\n"
      "  case $verb in\n";
  for (const VerbDoc& verb : verbs) {
    script += fmt::format("    \"{}\")\n      _arguments", verb.name);
    for_each_option(verb, [&](const OptionDoc& option) {
      for (const std::string& name : option.names) {
        script += fmt::format(" \\\n        '{}[{}]", name, quoted(option.text, "[]:"));
        const auto words = value_choices(option);
        if (!words.empty())
          script += fmt::format(":value:({})", joined(words, " "));
        else if (option.value == "DIR" || takes_file(option))
          script += option.value == "DIR" ? ":folder:_files -/" : ":file:_files";
        else if (!option.value.empty())
          script += ":value: ";
        script += "'";
      }
    });
    const std::string words = verb.name == "help" ? verb_names(verbs) : positional_words(verb);
    if (!words.empty()) script += fmt::format(" \\\n        '1:word:({})'", words);
    script += " ;;\n";
  }
  // Either autoloaded, and then called now, or sourced.
  return script +
         "  esac\n}\n"
         "if [ \"$funcstack[1]\" = _lapidary ]; then _lapidary \"$@\"; "
         "else compdef _lapidary lapidary; fi\n";
}

std::string fish_script(const std::vector<VerbDoc>& verbs) {
  std::string script =
      "# fish completion of lapidary: lapidary completion fish | source\n"
      "complete -c lapidary -f\n";
  for (const VerbDoc& verb : verbs) {
    if (!verb.has_parent())
      script += fmt::format("complete -c lapidary -n __fish_use_subcommand -a {} -d '{}'\n",
                            verb.name, quoted(verb.summary, ""));
    std::string condition;
    for (const std::string& word : CLI::detail::split(verb.name, ' '))
      condition +=
          fmt::format("{}__fish_seen_subcommand_from {}", condition.empty() ? "" : "; and ", word);
    const std::string seen = fmt::format("complete -c lapidary -n '{}'", condition);
    for_each_option(verb, [&](const OptionDoc& option) {
      script += seen;
      for (const std::string& name : option.names)
        script += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      const auto words = value_choices(option);
      if (!words.empty())
        script += fmt::format(" -x -a '{}'", joined(words, " "));
      else if (option.value == "DIR" || takes_file(option))
        script += option.value == "DIR" ? " -x -a '(__fish_complete_directories)'" : " -r -F";
      else if (!option.value.empty())
        script += " -x";
      script += fmt::format(" -d '{}'\n", quoted(option.text, ""));
    });
    const std::string words = verb.name == "help" ? verb_names(verbs) : positional_words(verb);
    if (!words.empty()) script += fmt::format("{} -a '{}'\n", seen, words);
  }
  return script;
}

}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  const std::vector<VerbDoc> verbs = describe_verbs(app);
  if (shell == "bash") return bash_script(verbs);
  if (shell == "zsh") return zsh_script(verbs);
  if (shell == "fish") return fish_script(verbs);
  fail_usage("completion: shell '{}' given, expected bash, zsh or fish", shell);
}

void add_completion(Program& program) {
  struct Options {
    std::string shell;
  };
  add_verb<Options>(
      program, "completion", "Print a completion script for a shell",
      [](CLI::App& verb, Options& o) {
        choices(verb.add_option("shell", o.shell, "The shell")->required(),
                {"bash", "zsh", "fish"});
        verb.footer(
            "Examples:\n"
            "  source <(lapidary completion bash)\n"
            "  lapidary completion fish > ~/.config/fish/completions/lapidary.fish");
      },
      [&program](const Options& o) {
        out(completion_script(program.app, o.shell));
        return kOk;
      });
}

}  // namespace lapidary::cli
