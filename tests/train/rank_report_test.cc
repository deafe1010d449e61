#include "train/rank_report.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lapidary/error.h"

namespace lapidary {
namespace {

Json line(int64_t step, const std::string& matrix, double rank, const Json& angle) {
  return {{"step", step},
          {"matrix", matrix},
          {"effective_rank", rank},
          {"left_angle", angle},
          {"right_angle", nullptr},
          {"update_cosine", rank / 10},
          {"singular_values", {rank, 1.0, 0.0}}};
}

const std::vector<Json> kLines = {line(5, "model.layers.0.self_attn.q_proj", 2, nullptr),
                                  line(5, "model.layers.1.self_attn.q_proj", 4, nullptr),
                                  line(9, "model.layers.0.self_attn.q_proj", 3, 10),
                                  line(9, "model.layers.0.mlp.up_proj", 5, 20),
                                  line(9, "model.layers.1.self_attn.q_proj", 6, 60)};

using Points = std::vector<std::pair<double, double>>;

TEST(RankReport, ChartsAreMeansOverLayersAndEndWithTheLastStep) {
  Report report;
  add_ranks(kLines, report);
  ASSERT_EQ(report.charts.size(), 4u);
  const Chart &ranks = report.charts[0], &spectrum = report.charts[1], &angles = report.charts[2];
  ASSERT_EQ(ranks.series.size(), 2u);
  EXPECT_EQ(ranks.series[0].name, "q_proj");
  EXPECT_EQ(ranks.series[0].points, (Points{{5, 3}, {9, 4.5}}));
  EXPECT_EQ(ranks.series[1].points, (Points{{9, 5}}));
  EXPECT_TRUE(spectrum.log_y);
  EXPECT_EQ(spectrum.series[0].points, (Points{{1, 4.5}, {2, 1}}));  // zero has no logarithm
  EXPECT_EQ(angles.series[0].points, (Points{{9, 30}}));
  EXPECT_TRUE(angles.series[1].points.empty());
  EXPECT_NEAR(report.charts[3].series[0].points[1].second, 0.45, 1e-12);
}

TEST(RankReport, TheMapHasALayerToARow) {
  Report report;
  add_ranks(kLines, report);
  ASSERT_EQ(report.heat_maps.size(), 1u);
  const HeatMap& map = report.heat_maps[0];
  EXPECT_EQ(map.title, "Effective rank after 9 steps");
  EXPECT_EQ(map.columns, (std::vector<std::string>{"q_proj", "up_proj"}));
  EXPECT_EQ(map.rows, (std::vector<std::string>{"0", "1"}));
  EXPECT_EQ(map.values[0], (std::vector<double>{3, 5}));
  EXPECT_EQ(map.values[1][0], 6);
  EXPECT_TRUE(std::isnan(map.values[1][1]));
}

TEST(RankReport, RefusesLinesThatLackSomething) {
  Report report;
  add_ranks({}, report);
  EXPECT_TRUE(report.charts.empty());
  EXPECT_THROW(add_ranks(std::vector<Json>{Json::object()}, report), Error);
  EXPECT_THROW(add_ranks(std::vector<Json>{line(1, "q_proj", 1, 1)}, report), Error);
}

}  // namespace
}  // namespace lapidary
