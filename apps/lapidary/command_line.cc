#include "command_line.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lapidary::cli {

namespace {

OptionDoc describe_option(const CLI::Option& option) {
  OptionDoc doc;
  for (const std::string& name : option.get_snames()) doc.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) doc.names.push_back("--" + name);
  doc.positional = option.get_positional();
  if (doc.names.empty()) doc.names.push_back(option.get_name(true));
  if (option.get_items_expected_max() > 0) doc.value = option.get_type_name();
  doc.text = option.get_description();
  doc.initial = option.get_default_str();
  if (doc.initial.starts_with('[') && doc.initial.ends_with(']'))  // CLI11's, of a list
    doc.initial = doc.initial.substr(1, doc.initial.size() - 2);
  doc.environment = option.get_envname();
  doc.required = option.get_required();
  return doc;
}

}  // namespace

VerbDoc describe_verb(const CLI::App& verb) {
  VerbDoc doc{full_name(verb), verb.get_description(), verb.get_footer(), {}, {}, {}};
  for (const CLI::App* second : verbs_of(verb))
    doc.second_words.emplace_back(second->get_name(), second->get_description());
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    if (option->get_positional()) {
      doc.positionals.push_back(describe_option(*option));
      continue;
    }
    const std::string title = option == verb.get_help_ptr() || option->get_group() == "Options"
                                  ? "General"
                                  : option->get_group();
    auto group = std::find_if(doc.groups.begin(), doc.groups.end(),
                              [&](const auto& g) { return g.first == title; });
    if (group == doc.groups.end()) group = doc.groups.insert(group, {title, {}});
    group->second.push_back(describe_option(*option));
  }
  // -h was declared first and is looked for last.
  std::stable_partition(doc.groups.begin(), doc.groups.end(),
                        [](const auto& group) { return group.first != "General"; });
  return doc;
}

std::vector<VerbDoc> describe_verbs(const CLI::App& app) {
  std::vector<VerbDoc> verbs;
  for (const CLI::App* verb : verbs_of(app)) {
    if (verb->get_group().empty()) continue;
    verbs.push_back(describe_verb(*verb));
    for (VerbDoc& second : describe_verbs(*verb)) verbs.push_back(std::move(second));
  }
  return verbs;
}

std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

const CLI::App& chosen_verb(const CLI::App& app) {
  const auto given = app.get_subcommands();
  return given.empty() ? app : chosen_verb(*given.front());
}

std::string full_name(const CLI::App& verb) {
  const CLI::App* parent = verb.get_parent();
  if (!parent) return "";
  return parent->get_parent() ? full_name(*parent) + " " + verb.get_name() : verb.get_name();
}

std::vector<std::string> value_choices(const OptionDoc& option) {
  if (option.value.find('|') == std::string::npos) return {};
  return CLI::detail::split(option.value, '|');
}

std::vector<std::string> wrap(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  std::string line;
  for (size_t i = 0; i < text.size();) {
    const size_t end = std::min(text.find(' ', i), text.size());
    const std::string_view word = text.substr(i, end - i);
    if (!line.empty() && line.size() + 1 + word.size() > width)
      lines.push_back(std::move(line)), line.clear();
    if (!line.empty()) line += ' ';
    line += word;
    i = end + 1;
  }
  if (!line.empty() || lines.empty()) lines.push_back(line);
  return lines;
}

std::string joined(const std::vector<std::string>& words, const char* separator) {
  return fmt::format("{}", fmt::join(words, separator));
}

}  // namespace lapidary::cli
