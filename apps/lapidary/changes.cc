#include "changes.h"

#include <utility>

#include "base/fail.h"

namespace lapidary::cli {

namespace {

// "POINT=FILE": both, or Error{kUsage}.
std::pair<std::string, std::string> parts_of(const std::string& text, const char* flag) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals + 1 == text.size())
    fail_usage("{}: expected POINT=FILE, found {}", flag, text);
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::vector<Intervention> interventions(const Changes& o, const Config& config) {
  std::vector<Intervention> all;
  const auto take = [&](std::vector<Intervention> found) {
    for (Intervention& change : found) all.push_back(std::move(change));
  };
  const auto from_file = [&](const std::string& text, const char* flag, bool mean) {
    const auto [point, file] = parts_of(text, flag);
    std::vector<Intervention> found = find_interventions(config, point);
    read_values(found, file, mean);
    return found;
  };
  for (const std::string& text : o.zero) take(find_interventions(config, text));
  for (const std::string& text : o.replace) take(from_file(text, "--replace", false));
  for (const std::string& text : o.mean) take(from_file(text, "--mean", true));
  for (const std::string& text : o.add) {
    const auto [point, rest] = parts_of(text, "--add");
    const AdapterUse use = adapter_use(rest, "--add");
    std::vector<Intervention> found = find_interventions(config, point);
    for (Intervention& change : found) {
      change.kind = Intervention::Kind::kAdd;
      change.strength = static_cast<float>(use.strength);
    }
    read_values(found, use.path, false);
    take(std::move(found));
  }
  return all;
}

}  // namespace

void add_changes(CLI::App& verb, Changes& changes) {
  const auto add = [&](const char* flag, std::vector<std::string>& list, const char* type,
                       const char* help) {
    verb.add_option(flag, list, help)->type_name(type)->allow_extra_args(false)->group("Changes");
  };
  add("--zero", changes.zero, "POINT[:HEAD]", "Set to zero");
  add("--replace", changes.replace, "POINT[:HEAD]=FILE",
      "Take the values of a file of activations: those of the same position");
  add("--mean", changes.mean, "POINT[:HEAD]=FILE",
      "Take the mean over the positions of a file of activations");
  add("--add", changes.add, "POINT=FILE[:SCALE]", "Add a vector, or a row for each position");
}

Tap tap_of(const Changes& changes, const Config& config) {
  return changes.empty() ? Tap() : intervening(interventions(changes, config));
}

}  // namespace lapidary::cli
