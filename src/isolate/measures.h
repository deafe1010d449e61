// Figures of outputs, and of conditions: what an output's text shows, what the model says of it,
// and what all outputs of all examples say together. Definitions: docs/isolation.md.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "isolate/plan.h"
#include "isolate/run_folder.h"

namespace lapidary {

// By name, as "rougeL"; only those that an output can have.
using Measures = std::map<std::string, double>;

// What kind of figure a name is: how it is shown, and which way is better.
struct MeasureKind {
  std::string_view name;
  std::string_view title;
  int better;  // 1: larger, -1: smaller, 0: neither
  int digits;
};
std::span<const MeasureKind> measure_kinds();

// Which outputs are alike: "outputs" of working clusters, "synthesis", "questions".
std::span<const std::string> output_groups();
std::string_view group_of(const IsolationExample& example, const PlannedOutput& output);

// What the text alone shows.
Measures measure_text(const IsolationExample& example, const PlanOptions& options,
                      const PlannedOutput& output, std::string_view text);

// Where a text has terms and facts of clusters that the output must not know, in order.
struct ForeignMarks {
  struct Place {
    size_t begin, end;  // bytes
    bool fact;          // a number or a name, no term
  };
  std::vector<Place> places = {};
  int64_t terms = 0, facts = 0, words = 0;
};
// Nothing where no cluster is foreign to the output's.
std::optional<ForeignMarks> foreign_marks(const IsolationExample& example,
                                          const PlanOptions& options, size_t cluster,
                                          std::string_view text);

// All figures of all outputs that the folder has: of the text, and those that it stores.
struct MeasuredOutput {
  size_t example, condition, output;  // indices in the plans
  Measures measures;
};
std::vector<MeasuredOutput> measure_outputs(std::span<const IsolationExample> examples,
                                            std::span<const IsolationPlan> plans,
                                            const PlanOptions& options,
                                            const IsolationFolder& folder);

// A figure of a condition: the mean over examples of their outputs' mean.
struct ConditionFigure {
  std::string group, measure;
  Condition condition;
  std::vector<std::optional<double>> by_example;
  // What by_example is the mean of: the output's index in the plan, and its figure.
  std::vector<std::vector<std::pair<size_t, double>>> by_output = {};
  int64_t examples = 0;  // that have it
  double mean = 0;
  std::optional<std::pair<double, double>> interval = {};  // 95 %, of the bootstrap
};

// The semantic condition against another, paired by example: over the outputs that both have.
struct ConditionDifference {
  std::string group, measure;
  Condition a, b;
  int64_t pairs = 0;
  double mean = 0;  // a - b
  std::optional<std::pair<double, double>> interval = {};
  std::optional<double> p_wilcoxon = {}, p_sign_flip = {}, p_t = {};
  std::optional<double> p_holm = {};  // of Wilcoxon's, over all differences
  std::optional<double> dz = {}, gz = {}, rank_biserial = {};
  std::optional<int64_t> pairs_needed = {};
};

std::vector<ConditionFigure> condition_figures(std::span<const IsolationExample> examples,
                                               std::span<const IsolationPlan> plans,
                                               std::span<const MeasuredOutput> outputs,
                                               uint64_t seed);
// Against semantic, of every other condition; none where semantic was not run.
std::vector<ConditionDifference> condition_differences(std::span<const ConditionFigure> figures,
                                                       uint64_t seed);

nlohmann::ordered_json to_json(const ConditionFigure& figure);
nlohmann::ordered_json to_json(const ConditionDifference& difference);

}  // namespace lapidary
