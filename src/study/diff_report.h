// The page of two models' difference, and what it says as JSON.
#pragma once

#include <span>
#include <vector>

#include "lapidary/model_diff.h"

#include "report/report.h"

namespace lapidary {

struct ModelDiff {
  WeightDiff weights;
  TextDiff text;
  std::vector<double> swapped = {};  // of swap_layers(), or none

  // Norm of what changed in the matrices of a layer, or of all (-1), over that of A's.
  double size(int layer = -1) const;
};

nlohmann::ordered_json to_json(const ModelDiff& diff);
// `title` names both. `tokens` are those of the text.
Report diff_report(const ModelDiff& diff, const std::string& title, const Engine& a,
                   const Engine& b, std::span<const Token> tokens);

}  // namespace lapidary
