// A part of a page: the matrices of all layers as a table that is tinted by a figure of one's
// choice.
#pragma once

#include <string>
#include <vector>

#include "lapidary/matrix_study.h"

#include "report/report.h"

namespace lapidary {

struct MatrixMap {
  struct Figure {
    std::string name;
    std::string meaning;         // a sentence
    std::vector<double> values;  // one for each matrix; NaN: none
    bool log = false;            // tinted by the logarithm
  };
  std::vector<MatrixId> matrices;
  std::vector<Figure> figures = {};
  std::string curve_title = {};
  std::vector<std::vector<double>> curves = {};  // for each matrix, largest first; or none at all
};

// One on a page. Adds its style to the report's, which the section then is to be part of.
HtmlSection draw(const std::string& title, const MatrixMap& map, Report& report);

}  // namespace lapidary
