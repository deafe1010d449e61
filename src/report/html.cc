#include "report/html.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "report/assets.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Chart& chart) {
  Json series = Json::array();
  for (const Chart::Series& s : chart.series)
    series.push_back({{"name", s.name}, {"points", s.points}, {"limit", s.limit}});
  return {{"kind", chart.kind == Chart::Kind::kLine ? "line" : "bars"},
          {"title", chart.title},
          {"x", chart.x_title},
          {"y", chart.y_title},
          {"labels", chart.labels},
          {"log", chart.log_y},
          {"stacked", chart.stacked},
          {"logX", chart.log_x},
          {"series", series}};
}

std::string facts_html(const Report& report) {
  std::string html = "<dl>";
  for (const auto& [name, value] : report.facts)
    html +=
        fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", html_escape(name), html_escape(value));
  return html + "</dl>\n";
}

std::string table_html(const ReportTable& table) {
  std::string html = "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>";
  const auto cell = [&](const char* tag, size_t column, const std::string& text) {
    html += fmt::format("<{}{}>{}</{}>", tag, table.columns[column].number ? " class=\"n\"" : "",
                        html_escape(text), tag);
  };
  for (size_t i = 0; i < table.columns.size(); ++i) cell("th", i, table.columns[i].title);
  html += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) cell("td", i, row[i]);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

// From nothing at the least value to a tint that text can still be read on at the largest; values
// of both signs from nothing at 0, each sign to its colour.
std::string heat_cell(double value, double least, double most) {
  if (!std::isfinite(value)) return "<td></td>";
  const bool signs = least < 0 && most > 0;
  const double from = signs ? 0 : least, to = signs ? std::max(most, -least) : most;
  return fmt::format(
      "<td{} style=\"--heat:{:.0f}%\">{:.3g}</td>", signs && value < 0 ? " class=\"below\"" : "",
      to > from ? 55 * ((signs ? std::abs(value) : value) - from) / (to - from) : 0, value);
}

std::string heat_map_html(const HeatMap& map) {
  double least = INFINITY, most = -INFINITY;
  for (const auto& row : map.values)
    for (const double value : row)
      if (std::isfinite(value)) least = std::min(least, value), most = std::max(most, value);
  std::string html = fmt::format(
      "<figure><figcaption>{}</figcaption><div class=\"scroll\" tabindex=\"0\"><table "
      "class=\"heat\">\n<thead><tr><th>{}</th>",
      html_escape(map.title), html_escape(map.corner));
  for (const std::string& column : map.columns)
    html += fmt::format("<th class=\"n\">{}</th>", html_escape(column));
  html += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < map.rows.size(); ++i) {
    html += fmt::format("<tr><th>{}</th>", html_escape(map.rows[i]));
    for (const double value : map.values[i]) html += heat_cell(value, least, most);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div></figure>\n";
}

std::string comparison_html(const TextComparison& c) {
  const auto side = [&](const char* name, const std::string& text) {
    const std::string_view all = text, marked = all.substr(c.common);
    return fmt::format("<div><h3>{}</h3><pre>{}{}</pre></div>\n", name,
                       html_escape(all.substr(0, c.common)),
                       marked.empty() ? "" : "<mark>" + html_escape(marked) + "</mark>");
  };
  return fmt::format(
      "<section><h2>{} <small>{}</small></h2>\n<p>{}</p>\n<div "
      "class=\"two\">\n{}{}</div></section>\n",
      html_escape(c.title), html_escape(c.remark), html_escape(c.question), side("A", c.left),
      side("B", c.right));
}

std::string section_html(const HtmlSection& section) {
  return fmt::format("<section><h2>{}</h2>\n{}</section>\n", html_escape(section.title),
                     section.html);
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string html;
  for (const char c : text) switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      default:
        html += c;
    }
  return html;
}

std::string script_json(const Json& value) {
  std::string json = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  for (size_t i = 0; (i = json.find('<', i)) != std::string::npos;) json.replace(i, 1, "\\u003c");
  return json;
}

std::string html_page(const Report& report) {
  std::string body = fmt::format("<h1>{}</h1>\n", html_escape(report.title)) + facts_html(report);
  for (const HtmlSection& section : report.opening) body += section_html(section);
  Json charts = Json::array();
  for (const Chart& chart : report.charts) {
    // The number of bars decides the height; of a line chart it is fixed.
    const size_t bars = chart.kind != Chart::Kind::kBars ? 0
                        : chart.stacked                  ? 2 * chart.labels.size()
                                        : chart.labels.size() * (chart.series.size() + 1);
    body += fmt::format(
        "<figure><figcaption>{}</figcaption><div class=\"chart\" style=\"height:{}rem\">"
        "<canvas role=\"img\" aria-label=\"{}\"></canvas></div></figure>\n",
        html_escape(chart.title), bars > 0 ? 7 + bars : 24, html_escape(chart.title));
    charts.push_back(to_json(chart));
  }
  for (const HeatMap& map : report.heat_maps) body += heat_map_html(map);
  if (!report.table.columns.empty()) body += table_html(report.table);
  for (const TextComparison& comparison : report.comparisons) body += comparison_html(comparison);
  for (const HtmlSection& section : report.sections) body += section_html(section);
  for (const std::string& note : report.notes)
    body += fmt::format("<p>{}</p>\n", html_escape(note));
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n"
      "<title>{}</title>\n<style>\n{}{}</style>\n</head>\n<body>\n<main>\n{}</main>\n",
      html_escape(report.title), assets::kPageCss, report.style, body);
  if (!report.charts.empty())
    page += fmt::format("<script>\n{}\n</script>\n<script>const reportCharts = {};\n{}</script>\n",
                        assets::kChartJs, script_json(charts), assets::kChartsJs);
  return page + "</body>\n</html>\n";
}

}  // namespace lapidary
