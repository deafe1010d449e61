#include "study/matrix_map.h"

#include <fmt/format.h>

#include "report/html.h"
#include "study/assets.h"

namespace lapidary {

HtmlSection draw(const std::string& title, const MatrixMap& map, Report& report) {
  using Json = nlohmann::ordered_json;
  Json matrices = Json::array(), figures = Json::array();
  for (const MatrixId& id : map.matrices)
    matrices.push_back({{"layer", id.layer}, {"name", id.name}});
  for (const MatrixMap::Figure& f : map.figures)
    figures.push_back(
        {{"name", f.name}, {"meaning", f.meaning}, {"log", f.log}, {"values", f.values}});
  const Json all = {{"matrices", matrices},
                    {"figures", figures},
                    {"curves", map.curves},
                    {"curveTitle", map.curve_title}};
  report.style += assets::kMatrixMapCss;
  return {title, fmt::format("<div class=\"matrix-map\"></div>\n<script>const matrixMap = {};\n{}"
                             "</script>\n",
                             script_json(all), assets::kMatrixMapJs)};
}

}  // namespace lapidary
