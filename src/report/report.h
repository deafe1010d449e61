// What a verb found out, in the form it was asked for: a table to read, records to compute with, or
// a page with charts.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace lapidary {

struct ReportTable {
  struct Column {
    std::string title;
    bool number = false;  // aligned to the right
  };
  std::vector<Column> columns = {};
  std::vector<std::vector<std::string>> rows = {};  // a cell per column
};

struct Chart {
  enum class Kind { kLine, kBars };
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points = {};  // x and y; of bars, x is the label's index
    bool limit = false;  // of the series before it: drawn dashed, or as a pale bar
  };
  Kind kind = Kind::kLine;
  std::string title;
  std::string x_title = {};
  std::string y_title = {};
  std::vector<std::string> labels = {};  // of bars
  std::vector<Series> series = {};
  bool log_y = false;    // of lines: y is positive, and drawn by its logarithm
  bool log_x = false;    // of lines: the same of x
  bool stacked = false;  // of bars: the series of a label end to end
};

// A table of numbers whose cells are tinted by their size; on the page only.
struct HeatMap {
  std::string title;
  std::string corner = {};  // what the rows are
  std::vector<std::string> columns = {};
  std::vector<std::string> rows = {};
  std::vector<std::vector<double>> values = {};  // [rows][columns]; NaN: nothing there
};

// Two answers to a question, side by side; on the page only.
struct TextComparison {
  std::string title;
  std::string remark;  // "identical"
  std::string question;
  std::string left, right;
  size_t common = 0;  // bytes at the beginning that both have; the rest is marked
};

// A part of the page that only its caller knows how to draw.
struct HtmlSection {
  std::string title;
  std::string html;  // its text is escaped already (html.h)
};

struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts = {};  // name and value
  ReportTable table = {};
  std::vector<HtmlSection> opening = {};  // after the facts
  std::vector<Chart> charts = {};
  std::vector<HeatMap> heat_maps = {};
  std::vector<TextComparison> comparisons = {};
  std::vector<HtmlSection> sections = {};  // after the table
  std::string style = {};                  // CSS of the sections
  std::vector<std::string> notes = {};     // sentences below the table, on the page only
  // What json, jsonl and csv print: an array of objects that have the same keys.
  nlohmann::ordered_json records = nlohmann::ordered_json::array();
};

enum class ReportFormat { kMarkdown, kJson, kJsonl, kCsv, kHtml };

// "md", "json", "jsonl", "csv" or "html". Throws Error{kUsage}.
ReportFormat parse_report_format(std::string_view name);

std::string render(const Report& report, ReportFormat format);

}  // namespace lapidary
