// What lapidary tune found to suit this machine, and its file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "lapidary/tune.h"

namespace lapidary::cli {

// What settings are good for. They are not used on another one.
struct Machine {
  std::string cpu;          // its name
  std::string isas = {};    // the instruction sets that the kernels may use: "ref avx2"
  int cpus = 0;             // that the process may use
  int cores = 0;            // physical ones among them
  double cgroup_cores = 0;  // that the control groups allow; 0: no limit
  friend bool operator==(const Machine&, const Machine&) = default;
};
Machine this_machine();

// More than any machine has cores, and few enough for the system to start.
inline constexpr int kMostThreads = 4096;

// What no flag and no variable says; 0 or "": as without settings.
struct Settings {
  int threads = 0;
  int threads_batch = 0;
  int64_t chunk = 0;
  std::string kv_type;
  std::string isa;
};

// $XDG_CONFIG_HOME/lapidary/settings.json, or in ~/.config; empty when there is no home.
std::filesystem::path settings_file();
// Its contents for what was chosen here.
nlohmann::ordered_json settings_json(const std::vector<TuneChoice>& choices,
                                     const std::string& model);

// --settings, of the verbs that compute.
void add_settings(CLI::App& verb);
// Reads the settings that the verb goes by, if it has the option: of the option's file, or of
// settings_file() if that is there. What is of another machine is not used, and said. Throws
// Error{kInput} for a file that is damaged or, where it was named, missing or of another machine.
void take_settings(const CLI::App& verb);
// What was taken.
const Settings& settings();

}  // namespace lapidary::cli
