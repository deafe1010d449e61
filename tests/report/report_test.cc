#include "report/report.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "lapidary/error.h"

#include "report/html.h"

namespace lapidary {
namespace {

Report sample() {
  Report report{.title = "A <title>", .facts = {{"processor", "Acme & Sons"}}};
  report.table.columns = {{"name"}, {"t/s", true}};
  report.table.rows = {{"short", "1.50 ± 0.10"}, {"a longer one", "12"}};
  report.records.push_back({{"name", "with \"quotes\", and a comma"},
                            {"value", 1.5},
                            {"none", nullptr},
                            {"list", {1, 2}}});
  report.records.push_back({{"name", "plain"}, {"value", 2}, {"none", 3}, {"list", {3}}});
  return report;
}

TEST(Report, MarkdownListsTheFactsAndAlignsByCharactersNotBytes) {
  EXPECT_EQ(render(sample(), ReportFormat::kMarkdown),
            "- processor: Acme & Sons\n"
            "\n"
            "| name         |         t/s |\n"
            "| ------------ | ----------: |\n"
            "| short        | 1.50 ± 0.10 |\n"
            "| a longer one |          12 |\n");
}

TEST(Report, CsvQuotesEveryCellAndLeavesListsOut) {
  EXPECT_EQ(render(sample(), ReportFormat::kCsv),
            "name,value,none\n"
            "\"with \"\"quotes\"\", and a comma\",\"1.5\",\"\"\n"
            "\"plain\",\"2\",\"3\"\n");
}

TEST(Report, JsonIsOneArrayAndJsonlALinePerRecord) {
  EXPECT_EQ(nlohmann::ordered_json::parse(render(sample(), ReportFormat::kJson)), sample().records);
  EXPECT_EQ(
      render(sample(), ReportFormat::kJsonl),
      "{\"name\":\"with \\\"quotes\\\", and a comma\",\"value\":1.5,\"none\":null,\"list\":[1,2]}\n"
      "{\"name\":\"plain\",\"value\":2,\"none\":3,\"list\":[3]}\n");
  Report empty;
  EXPECT_EQ(render(empty, ReportFormat::kJson), "[]\n");
  EXPECT_EQ(render(empty, ReportFormat::kCsv), "");
}

TEST(Report, NamesOfFormats) {
  EXPECT_EQ(parse_report_format("csv"), ReportFormat::kCsv);
  EXPECT_THROW(parse_report_format("sql"), Error);
}

TEST(Html, TextIsEscapedEverywhere) {
  const std::string page = render(sample(), ReportFormat::kHtml);
  EXPECT_NE(page.find("<h1>A &lt;title&gt;</h1>"), std::string::npos);
  EXPECT_NE(page.find("Acme &amp; Sons"), std::string::npos);
  EXPECT_EQ(page.find("A <title>"), std::string::npos);
  EXPECT_EQ(html_escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
}

TEST(Html, APageWithoutChartsHasNoScriptAndOneWithThemLoadsNothing) {
  Report report = sample();
  EXPECT_EQ(render(report, ReportFormat::kHtml).find("<script"), std::string::npos);
  report.charts.push_back(
      {.title = "</script><b>", .series = {{.name = "</script>", .points = {{1, 2}}}}});
  const std::string page = render(report, ReportFormat::kHtml);
  EXPECT_NE(page.find("Chart.js v"), std::string::npos);
  for (const char* forbidden : {"<script src", "<link rel=\"stylesheet", "@import", "<img"})
    EXPECT_EQ(page.find(forbidden), std::string::npos) << forbidden;
  size_t ends = 0;
  for (size_t at = 0; (at = page.find("</script>", at)) != std::string::npos; ++at) ++ends;
  EXPECT_EQ(ends, 2u);
}

TEST(Html, AHeatMapTintsCellsFromTheLeastToTheLargest) {
  Report report = sample();
  report.heat_maps.push_back({.title = "Heat & rank",
                              .corner = "layer",
                              .columns = {"q", "k"},
                              .rows = {"0", "1"},
                              .values = {{1, 3}, {2, NAN}}});
  const std::string page = render(report, ReportFormat::kHtml);
  EXPECT_NE(page.find("<figcaption>Heat &amp; rank</figcaption>"), std::string::npos);
  EXPECT_NE(
      page.find("<tr><th>0</th><td style=\"--heat:0%\">1</td><td style=\"--heat:55%\">3</td>"),
      std::string::npos);
  EXPECT_NE(page.find("<tr><th>1</th><td style=\"--heat:28%\">2</td><td></td></tr>"),
            std::string::npos);
}

TEST(Html, AHeatMapWithBothSignsTintsFromZeroInTwoColours) {
  Report report = sample();
  report.heat_maps.push_back(
      {.title = "Signs", .columns = {"q", "k", "v"}, .rows = {"0"}, .values = {{-4, 0, 2}}});
  EXPECT_NE(render(report, ReportFormat::kHtml)
                .find("<td class=\"below\" style=\"--heat:55%\">-4</td>"
                      "<td style=\"--heat:0%\">0</td><td style=\"--heat:28%\">2</td>"),
            std::string::npos);
}

}  // namespace
}  // namespace lapidary
