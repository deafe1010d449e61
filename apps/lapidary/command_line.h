// The declared command line as plain data, for help, man page and completion.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace lapidary::cli {

struct OptionDoc {
  std::vector<std::string> names;  // "-m", "--model"; a positional: its name
  bool positional = false;
  std::string value;  // "N", "fast|exact", "FILE"; empty for a flag
  std::string text;
  std::string initial;      // its value where none is given, where the option says so
  std::string environment;  // of the variable that stands in for it
  bool required = false;
};

struct VerbDoc {
  std::string name;  // "bench", or of a second word "bench limits"
  std::string summary;
  std::string footer;
  std::vector<std::pair<std::string, std::vector<OptionDoc>>> groups;  // by title, in order
  std::vector<OptionDoc> positionals;
  std::vector<std::pair<std::string, std::string>> second_words;  // and their summaries

  bool has_parent() const { return name.find(' ') != std::string::npos; }
};

VerbDoc describe_verb(const CLI::App& verb);
// Those that are not hidden, each followed by its second words.
std::vector<VerbDoc> describe_verbs(const CLI::App& app);
std::vector<const CLI::App*> verbs_of(const CLI::App& app);  // hidden ones too
// The verb that was given, to its last word; the program itself when there was none.
const CLI::App& chosen_verb(const CLI::App& app);
// "bench limits"; of the program "".
std::string full_name(const CLI::App& verb);

// The words an option takes, if its value is a list of them.
std::vector<std::string> value_choices(const OptionDoc& option);

// Breaks `text` into lines of at most `width` columns at blanks.
std::vector<std::string> wrap(std::string_view text, size_t width);
std::string joined(const std::vector<std::string>& words, const char* separator);

}  // namespace lapidary::cli
