// How many threads suit this process, and why.
#pragma once

#include <filesystem>
#include <string>

namespace lapidary {

struct CpuBudget {
  int allowed_cpus = 1;     // by the process's affinity
  int physical_cores = 1;   // among them; two hardware threads of a core share its units
  double cgroup_cores = 0;  // CPU time that the control groups allow, in cores; 0: no limit

  int preferred = 0;  // by prefer_threads(); 0: nothing

  // What is preferred, as far as there are CPUs for it. Else one per physical core, at most the
  // whole cores that the control groups allow, at least 1.
  int threads() const;
  // "8 allowed CPUs, 4 physical cores, 2.5 cores by the control group"
  std::string explanation() const;
};

CpuBudget cpu_budget();
// From now on cpu_budget() prefers so many threads: a measurement found them to suit the machine
// better than one per core. 0: nothing.
void prefer_threads(int threads);

// Warns of more threads than CPUs to run them.
void warn_of_threads(int threads, const CpuBudget& budget);

// The least limit among the control group that `self` names (the text of /proc/self/cgroup) and
// those above it, mounted at `root`; 0: none. Both versions of control groups.
double read_cgroup_cores(const std::filesystem::path& root, const std::string& self);

}  // namespace lapidary
