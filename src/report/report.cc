#include "report/report.h"

#include <algorithm>

#include "base/fail.h"
#include "report/html.h"

namespace lapidary {

namespace {

using Json = nlohmann::ordered_json;

// Columns of a terminal, or of a page, that a text takes: its characters, not its bytes.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string markdown_line(const ReportTable& table, const std::vector<size_t>& widths,
                          const std::vector<std::string>& cells) {
  std::string line = "|";
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string padding(widths[i] - width_of(cells[i]), ' ');
    const bool number = table.columns[i].number;
    line += fmt::format(" {}{}{} |", number ? padding : "", cells[i], number ? "" : padding);
  }
  return line + "\n";
}

// The facts as a list, then the table: short enough for a terminal, complete enough to be pasted.
std::string markdown(const Report& report) {
  const ReportTable& table = report.table;
  std::vector<size_t> widths;
  std::vector<std::string> titles;
  for (size_t i = 0; i < table.columns.size(); ++i) {
    titles.push_back(table.columns[i].title);
    size_t width = std::max<size_t>(3, width_of(titles.back()));
    for (const auto& row : table.rows) width = std::max(width, width_of(row[i]));
    widths.push_back(width);
  }
  std::string text;
  for (const auto& [name, value] : report.facts) text += fmt::format("- {}: {}\n", name, value);
  if (!text.empty()) text += "\n";
  text += markdown_line(table, widths, titles) + "|";
  for (size_t i = 0; i < widths.size(); ++i)
    text += fmt::format(" {:->{}}{} |", "", widths[i] - 1, table.columns[i].number ? ':' : '-');
  text += "\n";
  for (const auto& row : table.rows) text += markdown_line(table, widths, row);
  return text;
}

std::string dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string csv_cell(const Json& value) {
  const std::string text = value.is_null()     ? ""
                           : value.is_string() ? value.get<std::string>()
                                               : dump(value);
  std::string cell = "\"";
  for (const char c : text) {
    if (c == '"') cell += '"';
    cell += c;
  }
  return cell += '"';
}

// A header and a line per record, every cell quoted. Lists have no place in it.
std::string csv(const Json& records) {
  std::string text;
  for (const Json& record : records) {
    std::string names, values;
    for (const auto& [key, value] : record.items()) {
      if (value.is_structured()) continue;
      if (!names.empty()) names += ',', values += ',';
      names += key;
      values += csv_cell(value);
    }
    if (text.empty()) text = names + "\n";
    text += values + "\n";
  }
  return text;
}

}  // namespace

ReportFormat parse_report_format(std::string_view name) {
  if (name == "md") return ReportFormat::kMarkdown;
  if (name == "json") return ReportFormat::kJson;
  if (name == "jsonl") return ReportFormat::kJsonl;
  if (name == "csv") return ReportFormat::kCsv;
  if (name == "html") return ReportFormat::kHtml;
  fail_usage("format '{}' given, expected md, json, jsonl, csv or html", name);
}

std::string render(const Report& report, ReportFormat format) {
  switch (format) {
    case ReportFormat::kMarkdown:
      return markdown(report);
    case ReportFormat::kJson:
      return dump(report.records, 2) + "\n";
    case ReportFormat::kJsonl: {
      std::string text;
      for (const Json& record : report.records) text += dump(record) + "\n";
      return text;
    }
    case ReportFormat::kCsv:
      return csv(report.records);
    case ReportFormat::kHtml:
      return html_page(report);
  }
  return "";
}

}  // namespace lapidary
