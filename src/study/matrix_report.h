// What study layers adds to its page and figures when it is asked for more.
#pragma once

#include <optional>
#include <vector>

#include "lapidary/layer_ablation.h"
#include "lapidary/matrix_study.h"

#include "report/report.h"

namespace lapidary {

nlohmann::ordered_json to_json(const AblationStudy& study);
void add_to(Report& report, const AblationStudy& study);

// Those that were asked for.
struct MatrixStudies {
  std::vector<WeightSpectrum> spectra = {};
  std::optional<GradientFlow> gradients = {};
  std::optional<QuantizationErrors> errors = {};
};
// As members of `figures`: "spectra", "gradients", "quantization".
void add_to(nlohmann::ordered_json& figures, const MatrixStudies& studies);
// Nothing where none was.
void add_to(Report& report, const MatrixStudies& studies);

}  // namespace lapidary
