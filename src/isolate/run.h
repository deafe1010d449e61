// Runs plans: each context is read once, forked for every output that goes on from it, and all
// outputs that wait for nothing are decoded together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lapidary/engine.h"
#include "lapidary/progress.h"
#include "lapidary/sampler.h"

#include "isolate/find_clusters.h"
#include "isolate/plan.h"
#include "isolate/run_folder.h"

namespace lapidary {

struct IsolationRunOptions {
  PlanOptions plan = {};
  SamplerOptions sampling = {.temperature = 0.7, .top_k = 0, .top_p = 1};  // its seed is the plan's
  bool ignore_eos = false;
  int64_t parallel = 16;   // outputs that are decoded together, at most
  int64_t max_memory = 0;  // for keys and values; 0: half of what is available
  // The original study's procedure: every output reads its context again, one after another.
  bool one_at_a_time = false;
  // Keys and values of contexts stay in the folder: a run that goes on and the measures restore
  // them.
  bool keep_contexts = false;
  // What made plan and engine what they are, for run.json: how clusters were found, where they are
  // not the file's, and the names of adapters.
  struct Found {
    FindOptions by;
    int layer;  // whose hidden states were averaged
  };
  std::optional<Found> found = {};
  std::vector<std::string> adapters = {};
};

// Throws as run_isolation does before any work; a folder need not be there for it.
void check_run(const Engine& engine, std::span<const IsolationPlan> plans,
               const IsolationRunOptions& options);

// Makes what the folder does not have yet. `watch` counts outputs. Throws Error{kInput}, before any
// work, for a context that does not fit (check_plan), and Error{kInterrupted}: the folder has what
// was finished. An output that hears others whose text
// comes to more tokens than were counted for it is made as long as there is room, with a warning.
void run_isolation(const std::shared_ptr<const Engine>& engine,
                   std::span<const IsolationExample> examples, std::span<const IsolationPlan> plans,
                   const IsolationRunOptions& options, IsolationFolder& folder,
                   const Watch& watch = {});

// Of an output: with it, and the place in the output, a token is drawn, whatever the condition and
// the order of the work.
uint64_t output_seed(uint64_t seed, const std::string& example, const std::string& output);

}  // namespace lapidary
