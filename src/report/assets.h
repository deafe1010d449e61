// Files that the page is made with, compiled in by src/CMakeLists.txt.
#pragma once

#include <string_view>

namespace lapidary::assets {

extern const std::string_view kPageCss;   // page.css
extern const std::string_view kChartsJs;  // charts.js
extern const std::string_view kChartJs;   // Chart.js, MIT licence, from Debian's libjs-chart.js

}  // namespace lapidary::assets
