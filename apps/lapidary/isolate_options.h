// Flags that the second words of isolate share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lapidary/text_embedder.h"

#include "common.h"
#include "isolate/find_clusters.h"
#include "isolate/plan.h"

namespace lapidary::cli {

struct PlanFlags {
  std::vector<std::string> files;
  std::vector<std::string> conditions;
  std::vector<std::string> text_fields;
  std::string prompts = "neutral";
  bool no_questions = false;
  PlanOptions options;
};

// FILE.. and --text-fields.
void add_examples(CLI::App& verb, PlanFlags& flags);
// The same, and what is asked of them.
void add_plan(CLI::App& verb, PlanFlags& flags);
// Throws Error{kUsage} for a condition that does not exist.
PlanOptions resolve(const PlanFlags& flags);
std::vector<IsolationExample> read_examples(const PlanFlags& flags);

// How clusters are found.
struct FindFlags {
  std::optional<std::string> method;  // agglomerative
  std::optional<int> layer;           // 0: default_layer()
  std::optional<int> number;          // 0: by silhouette
};
void add_finding(CLI::App& verb, FindFlags& flags, const char* group);
// Throws Error{kUsage} for a flag that nothing reads, since clusters are not "auto".
void check_finding(const FindFlags& flags, const std::string& clusters);
FindOptions resolve(const FindFlags& flags, uint64_t seed);
int layer_of(const FindFlags& flags, const Engine& engine);

// A model that embeds texts, by path or name, with the threads and the arithmetic of the other
// flags.
TextEmbedder load_embedder(const std::string& model, const ModelOptions& options,
                           const std::string& task);

void add_isolate_check(Program& program, CLI::App& isolate);
void add_isolate_cluster(Program& program, CLI::App& isolate);
void add_isolate_run(Program& program, CLI::App& isolate);
void add_isolate_report(Program& program, CLI::App& isolate);
void add_isolate_judge(Program& program, CLI::App& isolate);
void add_isolate_prove(Program& program, CLI::App& isolate);

}  // namespace lapidary::cli
