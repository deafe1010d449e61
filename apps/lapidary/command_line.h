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
  std::string environment;  // of the variable that stands in for it
  bool required = false;
};

struct VerbDoc {
  std::string name;
  std::string summary;
  std::string footer;
  std::vector<std::pair<std::string, std::vector<OptionDoc>>> groups;  // by title, in order
  std::vector<OptionDoc> positionals;
};

VerbDoc describe_verb(const CLI::App& verb);
std::vector<VerbDoc> describe_verbs(const CLI::App& app);  // those that are not hidden

// The words an option takes, if its value is a list of them.
std::vector<std::string> value_choices(const OptionDoc& option);

// Breaks `text` into lines of at most `width` columns at blanks.
std::vector<std::string> wrap(std::string_view text, size_t width);
std::string joined(const std::vector<std::string>& words, const char* separator);

}  // namespace lapidary::cli
