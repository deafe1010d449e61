#include "settings.h"

#include <cstdlib>
#include <ctime>

#include <fmt/format.h>

#include "lapidary/kv_type.h"
#include "lapidary/log.h"

#include "base/cpu_budget.h"
#include "base/fail.h"
#include "base/json.h"
#include "base/system.h"
#include "common.h"
#include "kernels/kernels.h"

namespace lapidary::cli {

namespace fs = std::filesystem;

namespace {

std::string& named_file() {  // by --settings
  static std::string file;
  return file;
}

Settings& taken() {
  static Settings settings;
  return settings;
}

Json to_json(const Machine& m) {
  return {{"cpu", m.cpu},
          {"isas", m.isas},
          {"cpus", m.cpus},
          {"cores", m.cores},
          {"cgroup_cores", m.cgroup_cores}};
}

Machine machine_of(const JsonObject& o) {
  return {.cpu = o.string("cpu"),
          .isas = o.string("isas"),
          .cpus = static_cast<int>(o.integer("cpus")),
          .cores = static_cast<int>(o.integer("cores")),
          .cgroup_cores = o.number("cgroup_cores")};
}

// The first field in which they differ: "cpus: 8 there, 2 here".
std::string difference(const Machine& there, const Machine& here) {
  const Json a = to_json(there), b = to_json(here);
  for (const auto& [field, value] : a.items())
    if (value != b[field])
      return fmt::format("{}: {} there, {} here", field, value.dump(), b[field].dump());
  return "";
}

int64_t count(const JsonObject& o, const char* field, int64_t most) {
  const int64_t value = o.integer(field, 0);
  if (value < 0 || value > most)
    o.fail_field(field, fmt::format("expected 0 to {}, found {}", most, value));
  return value;
}

Settings settings_of(const JsonObject& o) {
  Settings s{.threads = static_cast<int>(count(o, "threads", kMostThreads)),
             .threads_batch = static_cast<int>(count(o, "threads_batch", kMostThreads)),
             .chunk = count(o, "chunk", 8192),
             .kv_type = o.string("kv_type", ""),
             .isa = o.string("isa", "")};
  if (!s.kv_type.empty() && !kv_type_named(s.kv_type))
    o.fail_field("kv_type", fmt::format("expected f32, bf16, q8 or q4, found '{}'", s.kv_type));
  const auto is_isa = [&](const Kernels* kernels) { return kernels->isa == s.isa; };
  if (!s.isa.empty() && std::ranges::none_of(supported_kernels(), is_isa))
    o.fail_field("isa", fmt::format("'{}' is no instruction set of this CPU", s.isa));
  return s;
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace

Machine this_machine() {
  const CpuBudget budget = cpu_budget();
  Machine machine{.cpu = cpu_name(),
                  .cpus = budget.allowed_cpus,
                  .cores = budget.physical_cores,
                  .cgroup_cores = budget.cgroup_cores};
  for (const Kernels* kernels : supported_kernels())
    machine.isas += fmt::format("{}{}", machine.isas.empty() ? "" : " ", kernels->isa);
  return machine;
}

fs::path settings_file() {
  constexpr const char* kName = "lapidary/settings.json";
  const char* config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && *config == '/') return fs::path(config) / kName;
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != '\0' ? fs::path(home) / ".config" / kName : fs::path();
}

nlohmann::ordered_json settings_json(const std::vector<TuneChoice>& choices,
                                     const std::string& model) {
  Json values, why, measurements = Json::array();
  for (const TuneChoice& choice : choices) {
    const bool number = choice.chosen.find_first_not_of("0123456789") == std::string::npos;
    values[choice.setting] = number ? Json(std::stoll(choice.chosen)) : Json(choice.chosen);
    why[choice.setting] = choice.why;
    Json list = Json::array();
    for (const TuneValue& v : choice.values)
      list.push_back(
          {{"value", v.value}, {"tokens_per_second", v.tokens_per_second}, {"allowed", v.allowed}});
    measurements.push_back(
        {{"setting", choice.setting}, {"measured", choice.measured}, {"values", list}});
  }
  return {{"settings", values}, {"why", why},     {"machine", to_json(this_machine())},
          {"time", now_text()}, {"model", model}, {"measurements", measurements}};
}

void add_settings(CLI::App& verb) {
  verb.add_option("--settings", named_file(),
                  "A file that lapidary tune wrote, for what no flag says; none: as without "
                  "(default: lapidary/settings.json in $XDG_CONFIG_HOME or ~/.config)")
      ->type_name("FILE")
      ->envname("LAPIDARY_SETTINGS")
      ->group("General");
}

void take_settings(const CLI::App& verb) {
  const bool named = !named_file().empty();
  if (verb.get_option_no_throw("--settings") == nullptr || named_file() == "none") return;
  const fs::path file = named ? fs::path(named_file()) : settings_file();
  std::error_code error;
  if (file.empty() || (!named && !fs::exists(file, error))) return;
  try {
    const lapidary::Json json = read_json_file(file);
    const JsonObject all(json, file.string());
    const std::string other = difference(machine_of(all.object("machine")), this_machine());
    if (!other.empty()) {
      const std::string found =
          fmt::format("{}: measured on another machine ({})", file.string(), other);
      if (named) fail("{}", found);
      note(fmt::format("lapidary: warning: {}, not used; lapidary tune measures this one", found));
      return;
    }
    const Settings s = settings_of(all.object("settings"));
    taken() = s;
  } catch (const Error& e) {
    throw Error(e.kind(), e.what(), "lapidary tune makes it anew; --settings none goes without");
  }
  if (taken().threads_batch > 0) prefer_threads(taken().threads_batch);
  // The kernels are chosen by this variable, which wins where it is set.
  if (!taken().isa.empty()) ::setenv("LAPIDARY_ISA", taken().isa.c_str(), 0);
}

const Settings& settings() {
  return taken();
}

}  // namespace lapidary::cli
